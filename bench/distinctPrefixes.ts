/** An engine that also keeps what it was asked to read, and tells how many rows that needs when each distinct beginning is read once. */
import type { Engine, EngineRequest } from "../src/infer/index.ts";

export class RecordingEngine implements Engine {
  readonly #engine: Engine;
  readonly #prompts: Int32Array[] = [];

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  get info(): Engine["info"] {
    return this.#engine.info;
  }

  generate(request: EngineRequest, signal?: AbortSignal): ReturnType<Engine["generate"]> {
    // The last token of a scored prompt is predicted, not read.
    this.#prompts.push(Int32Array.from(request.prompt.slice(0, -1)));
    return this.#engine.generate(request, signal);
  }

  get numRequests(): number {
    return this.#prompts.length;
  }

  /** Distinct beginnings of the prompts so far: the least rows that tell everything. */
  countDistinctPrefixes(): number {
    const sorted = this.#prompts.toSorted((a, b) => {
      const common = commonLength(a, b);
      return (a[common] ?? -1) - (b[common] ?? -1);
    });
    return sorted.reduce(
      (sum, prompt, index) =>
        sum + prompt.length - (index === 0 ? 0 : commonLength(sorted[index - 1], prompt)),
      0,
    );
  }

  embed(...request: Parameters<Engine["embed"]>): ReturnType<Engine["embed"]> {
    return this.#engine.embed(...request);
  }

  statistics(): ReturnType<Engine["statistics"]> {
    return this.#engine.statistics();
  }

  loadAdapter(name: string, folder: string): Promise<void> {
    return this.#engine.loadAdapter(name, folder);
  }

  unloadAdapter(name: string): Promise<void> {
    return this.#engine.unloadAdapter(name);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#engine[Symbol.asyncDispose]();
  }
}

function commonLength(a: Int32Array, b: Int32Array): number {
  const length = Math.min(a.length, b.length);
  let common = 0;
  while (common < length && a[common] === b[common]) common++;
  return common;
}
