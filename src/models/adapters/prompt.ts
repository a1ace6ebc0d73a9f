/**
 * Virtual tokens before each text: a plain table (prompt tuning: Lester et al., 2021) or what an encoder makes (P-tuning). Their ids are
 * vocabSize, vocabSize + 1, …; whoever makes batches puts them first, and positions count them, as in PEFT.
 */
import { dtypeBytes } from "../../base/index.ts";
import { ParameterStore, promptEmbedding, Storage, Tensor } from "../../tensor/index.ts";
import type { Context, ParameterSpec } from "../../tensor/index.ts";
import type { DecoderConfig } from "../common/config.ts";
import type { Decoder } from "../common/decoder.ts";
import type { EmbeddingAdapter } from "../common/projection.ts";
import { embeddingName } from "../common/specs.ts";
import { Adapter } from "./adapter.ts";
import type { AdapterOptions, AdapterTensor } from "./adapter.ts";
import type { PromptConfig } from "./config.ts";
import { promptEncoders } from "./encoder.ts";
import type { EncoderShape, PromptEncoder } from "./encoder.ts";

const geluHidden = 1024;
const promptName = "prompt_embeddings";

interface SizedEncoder {
  network: PromptEncoder;
  shape: EncoderShape;
}

function encoderOf({ width }: DecoderConfig, config: PromptConfig): SizedEncoder | undefined {
  if (config.method !== "p-tuning") return undefined;
  const hidden = config.hidden ?? (config.encoder === "mlp-gelu" ? geluHidden : width);
  return { network: promptEncoders[config.encoder], shape: { ...config, hidden, width } };
}

/** The table of virtual tokens, or the encoder that makes it. */
export function promptSpecs(model: DecoderConfig, config: PromptConfig): ParameterSpec[] {
  const encoder = encoderOf(model, config);
  if (encoder !== undefined) return encoder.network.specs(encoder.shape);
  const init = { kind: "normal", std: config.initStd } as const;
  return [{ name: promptName, shape: [config.numTokens, model.width], init, decays: false }];
}

export class PromptAdapter extends Adapter {
  readonly config: PromptConfig;
  readonly parameters: ParameterStore;
  override readonly embedding: EmbeddingAdapter;
  override readonly numVirtualTokens: number;
  readonly #decoder: Decoder;
  readonly #encoder: SizedEncoder | undefined;
  /** What the encoder gave, for inference. */
  #table: Tensor | undefined;

  constructor(decoder: Decoder, { config, ...options }: { config: PromptConfig } & AdapterOptions) {
    super();
    this.config = config;
    this.numVirtualTokens = config.numTokens;
    this.#decoder = decoder;
    this.#encoder = encoderOf(decoder.config, config);
    this.parameters = new ParameterStore(decoder.head.device, promptSpecs(decoder.config, config), options);
    this.embedding = {
      apply: (context, tokens, weight) =>
        context.scope(() => promptEmbedding(context, tokens, { weight, prompt: this.#prompt(context) })),
    };
  }

  #prompt(context: Context): Tensor {
    if (this.#encoder === undefined) return this.parameters.get(promptName);
    const { network, shape } = this.#encoder;
    if (context.tape !== undefined) {
      this.#forgetTable();
      return network.run(context, this.parameters, shape);
    }
    return (this.#table ??= this.#encoded(context));
  }

  #encoded(context: Context): Tensor {
    const { numTokens } = this.config;
    const { width } = this.#decoder.config;
    const { dtype } = this.#decoder;
    const table = new Tensor(new Storage(context.device.allocate(numTokens * width * dtypeBytes(dtype))), {
      shape: [numTokens, width],
      dtype,
    });
    context.scope(() => {
      if (this.#encoder === undefined) return;
      const fresh = this.#encoder.network.run(context, this.parameters, this.#encoder.shape);
      context.device.run("convert", { x: fresh, y: table, numElements: table.numElements });
    });
    return table;
  }

  initialise(context: Context, seed: number): void {
    this.#forgetTable();
    this.parameters.initialise(seed);
    const initTokens = this.config.method === "prompt-tuning" ? this.config.initTokens : undefined;
    if (initTokens === undefined) return;
    const { numTokens } = this.config;
    const { width, vocabSize } = this.#decoder.config;
    context.scope(() => {
      const tokens = Array.from({ length: numTokens }, (_, i) => initTokens[i % initTokens.length]);
      context.device.run("embeddingForward", {
        tokens: context.tensor(tokens, [numTokens], "i32"),
        weight: this.#decoder.parameters.get(embeddingName),
        y: this.parameters.get(promptName),
        numRows: numTokens,
        width,
        vocabSize,
      });
    });
  }

  /** The virtual tokens' embeddings alone, as PEFT has it: an encoder stays with the training checkpoint. */
  tensors(context: Context): AdapterTensor[] {
    this.#forgetTable();
    const tensor =
      this.#encoder === undefined ? this.parameters.get(promptName).alias() : this.#encoded(context);
    return [{ name: promptName, tensor }];
  }

  #forgetTable(): void {
    this.#table?.dispose();
    this.#table = undefined;
  }

  override dispose(): void {
    this.#forgetTable();
    super.dispose();
  }
}
