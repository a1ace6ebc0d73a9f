/**
 * What every adapter is to those who train, save, merge and serve it: its parameters in a store of its own beside a frozen decoder, the
 * places it takes in the decoder, and its tensors by the names of files.
 */
import type { Context, ParameterStore, Tensor } from "../../tensor/index.ts";
import type {
  DecoderAdapter,
  EmbeddingAdapter,
  ProjectionAdapter,
  ProjectionPlace,
  Sublayer,
  SublayerAdapter,
} from "../common/projection.ts";
import type { AdapterConfig } from "./config.ts";

/** One tensor of an adapter file. */
export interface AdapterTensor {
  /** As PEFT writes it, without "base_model.model.". */
  name: string;
  /** A view that the caller disposes. */
  tensor: Tensor;
}

/** The random bits of one training step: the same give the same zeros, also where a block is made again. */
export interface DropoutBits {
  seed: number;
  /** Which micro-batch of the step. */
  microBatch: number;
}

/** Philox blocks that one dropout of one micro-batch may use. */
const blocksPerPlace = 2 ** 31;

export abstract class Adapter implements DecoderAdapter, Disposable {
  abstract readonly config: AdapterConfig;
  /** Everything that is trained. */
  abstract readonly parameters: ParameterStore;
  readonly embedding: EmbeddingAdapter | undefined = undefined;
  /** Virtual tokens before each text, with the ids vocabSize, vocabSize + 1, … */
  readonly numVirtualTokens: number = 0;
  /** Set while training; without it nothing is dropped. */
  dropoutBits: DropoutBits | undefined;

  /** Fills the parameters: the model with the adapter is then the model without it (virtual tokens aside). */
  abstract initialise(context: Context, seed: number): void;

  /** What a file holds. */
  abstract tensors(context: Context): AdapterTensor[];

  projection(_place: ProjectionPlace): ProjectionAdapter | undefined {
    return undefined;
  }

  sublayer(_place: { layer: number; sublayer: Sublayer }): SublayerAdapter | undefined {
    return undefined;
  }

  /** Trainable numbers. */
  get numParameters(): number {
    return [...this.parameters].reduce((total, { numElements }) => total + numElements, 0);
  }

  /** Seed and first block of the dropout at the `index`-th of `numPlaces` places; undefined where nothing is dropped. */
  protected dropoutAt(index: number, numPlaces: number): { seed: number; counter: number } | undefined {
    if (this.dropoutBits === undefined) return undefined;
    const { seed, microBatch } = this.dropoutBits;
    return { seed, counter: (microBatch * numPlaces + index) * blocksPerPlace };
  }

  dispose(): void {
    this.parameters.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** What adapters are made beside. */
export interface AdapterOptions {
  dtype: "f32" | "bf16";
  /** Absent for inference. */
  gradientDtype?: "f32" | "bf16" | undefined;
}
