/** A model as the protocols see it, and the models of one server by name. */
import type { Engine } from "../../infer/index.ts";
import type { ChatTemplates, Tokenizer } from "../../text/index.ts";

export interface ServedModel {
  /** What clients call it. */
  readonly name: string;
  readonly engine: Engine;
  readonly tokenizer: Tokenizer;
  /** The model's own chat templates; undefined where it has none. */
  readonly chatTemplates: ChatTemplates | undefined;
  /** README.md of the model folder, and its license or what the README.md says of it, for people. */
  readonly card: string | undefined;
  readonly license: string | undefined;
  /** Seconds since 1970. */
  readonly created: number;
}

/** What a name in a request stands for: "model", or "model:adapter". */
export interface ResolvedModel {
  readonly model: ServedModel;
  readonly adapter: string | undefined;
}

export class ServedModels {
  readonly #models: ReadonlyMap<string, ServedModel>;

  constructor(models: readonly ServedModel[]) {
    this.#models = new Map(models.map((model) => [model.name, model]));
  }

  list(): readonly ServedModel[] {
    return [...this.#models.values()];
  }

  /** The model, or the model and its adapter, of a name; undefined where there is none. */
  resolve(name: string): ResolvedModel | undefined {
    const whole = this.#models.get(name);
    if (whole !== undefined) return { model: whole, adapter: undefined };
    const colon = name.lastIndexOf(":");
    const model = colon < 0 ? undefined : this.#models.get(name.slice(0, colon));
    const adapter = name.slice(colon + 1);
    return model?.engine.info.adapters.includes(adapter) === true ? { model, adapter } : undefined;
  }
}
