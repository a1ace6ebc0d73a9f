/**
 * The small numbers that a step reads: tokens, positions, where keys and values go, and how to sample. They share one piece of
 * device memory, so that one copy brings a whole step's worth; captured graphs read them at fixed places.
 */
import { Storage, Tensor } from "../tensor/index.ts";
import type { Context, PagedBatch } from "../tensor/index.ts";
import type { SamplingOptions } from "./sampling.ts";

/** A sequence as the runner sees it. */
export interface RunnerSequence {
  /** Blocks of its context, in order; enough for all tokens it will get. */
  readonly blocks: readonly number[];
  readonly sampling: SamplingOptions;
  /** Tokens whose keys and values are in the cache. */
  numCached: number;
  /** Draws so far: the counter of its random stream. */
  numDrawn: number;
}

export interface StepShape {
  /** N: query rows. */
  numRows: number;
  /** B: sequences. */
  numSequences: number;
  maxQueryLength: number;
  blockSize: number;
  maxBlocksPerSequence: number;
}

export interface SamplingTensors {
  temperature: Tensor;
  topK: Tensor;
  topP: Tensor;
  minP: Tensor;
  seeds: Tensor;
  counters: Tensor;
}

const wordBytes = 4;

/** Words of each field, in order; `tokens` comes last, so that it can be left out of a copy. */
function fieldWords({ numRows, numSequences, maxBlocksPerSequence }: StepShape) {
  return {
    seeds: 2 * numSequences,
    counters: 2 * numSequences,
    positions: numRows,
    slots: numRows,
    contextLengths: numSequences,
    queryStarts: numSequences + 1,
    lastRows: numSequences,
    topK: numSequences,
    temperature: numSequences,
    topP: numSequences,
    minP: numSequences,
    blockTables: numSequences * maxBlocksPerSequence,
    tokens: numRows,
  };
}
type FieldName = keyof ReturnType<typeof fieldWords>;

export class StepInputs implements Disposable {
  readonly shape: StepShape;
  /** i32 (N) */
  readonly tokens: Tensor;
  /** i32 (B): each sequence's last row. */
  readonly lastRows: Tensor;
  readonly batch: PagedBatch;
  readonly sampling: SamplingTensors;
  readonly #storage: Storage;
  readonly #integers: Int32Array<ArrayBuffer>;
  readonly #floats: Float32Array<ArrayBuffer>;
  readonly #starts: ReadonlyMap<FieldName, number>;

  constructor(context: Context, shape: StepShape) {
    this.shape = shape;
    const words = fieldWords(shape);
    const starts = new Map<FieldName, number>();
    let numWords = 0;
    for (const [name, length] of Object.entries(words) as [FieldName, number][]) {
      starts.set(name, numWords);
      numWords += length + (length % 2);
    }
    this.#starts = starts;
    const host = new ArrayBuffer(numWords * wordBytes);
    this.#integers = new Int32Array(host);
    this.#floats = new Float32Array(host);
    this.#storage = new Storage(context.device.allocate(host.byteLength));
    const { numRows, numSequences, maxBlocksPerSequence } = shape;
    const field = (name: FieldName, dims: readonly number[], dtype: "i32" | "f32" | "i64" = "i32"): Tensor =>
      new Tensor(this.#storage.retain(), { shape: dims, dtype, byteOffset: this.#start(name) * wordBytes });
    this.tokens = field("tokens", [numRows]);
    this.lastRows = field("lastRows", [numSequences]);
    this.batch = {
      ...shape,
      positions: field("positions", [numRows]),
      slots: field("slots", [numRows]),
      blockTables: field("blockTables", [numSequences, maxBlocksPerSequence]),
      contextLengths: field("contextLengths", [numSequences]),
      queryStarts: field("queryStarts", [numSequences + 1]),
    };
    this.sampling = {
      temperature: field("temperature", [numSequences], "f32"),
      topK: field("topK", [numSequences]),
      topP: field("topP", [numSequences], "f32"),
      minP: field("minP", [numSequences], "f32"),
      seeds: field("seeds", [numSequences], "i64"),
      counters: field("counters", [numSequences], "i64"),
    };
  }

  #start(name: FieldName): number {
    return this.#starts.get(name) ?? 0;
  }

  /**
   * Fills the step from its sequences, each with the number of new rows it brings, and queues the copy. Rows beyond those stand
   * for nothing: their keys go nowhere and they read one position of block 0. Without `tokens`, those on the device stay.
   */
  fill(
    context: Context,
    rows: readonly { sequence: RunnerSequence; numRows: number }[],
    tokens?: ArrayLike<number>,
  ): void {
    const { numRows, numSequences } = this.shape;
    this.#integers.fill(0);
    let row = 0;
    for (let index = 0; index < numSequences; index++) {
      this.#integers[this.#start("queryStarts") + index] = row;
      const entry = rows.at(index);
      if (entry === undefined) {
        this.#integers[this.#start("slots") + row] = -1;
        this.#integers[this.#start("contextLengths") + index] = 1;
        this.#integers[this.#start("lastRows") + index] = row;
        this.#integers[this.#start("topK") + index] = 1;
        row += 1;
      } else {
        row = this.#fillSequence(index, row, entry);
      }
    }
    this.#integers[this.#start("queryStarts") + numSequences] = row;
    // Rows without a token of their own keep the zeros.
    if (tokens !== undefined) this.#integers.set(tokens, this.#start("tokens"));
    const numWords = tokens === undefined ? this.#start("tokens") : this.#start("tokens") + numRows;
    context.device.upload(
      this.#storage.buffer,
      0,
      new Uint8Array(this.#integers.buffer, 0, numWords * wordBytes),
    );
  }

  #fillSequence(
    index: number,
    firstRow: number,
    { sequence, numRows }: { sequence: RunnerSequence; numRows: number },
  ): number {
    const { blockSize, maxBlocksPerSequence } = this.shape;
    const { blocks, sampling, numCached, numDrawn } = sequence;
    const integers = this.#integers;
    for (let offset = 0; offset < numRows; offset++) {
      const position = numCached + offset;
      integers[this.#start("positions") + firstRow + offset] = position;
      integers[this.#start("slots") + firstRow + offset] =
        blocks[Math.floor(position / blockSize)] * blockSize + (position % blockSize);
    }
    integers[this.#start("contextLengths") + index] = numCached + numRows;
    integers[this.#start("lastRows") + index] = firstRow + numRows - 1;
    integers.set(
      blocks.slice(0, maxBlocksPerSequence),
      this.#start("blockTables") + index * maxBlocksPerSequence,
    );
    integers[this.#start("topK") + index] = sampling.topK;
    this.#floats[this.#start("temperature") + index] = sampling.temperature;
    this.#floats[this.#start("topP") + index] = sampling.topP;
    this.#floats[this.#start("minP") + index] = sampling.minP;
    this.#setLong("seeds", index, sampling.seed);
    this.#setLong("counters", index, numDrawn);
    return firstRow + numRows;
  }

  #setLong(name: "seeds" | "counters", index: number, value: number): void {
    const word = this.#start(name) + 2 * index;
    this.#integers[word] = value | 0;
    this.#integers[word + 1] = Math.floor(value / 2 ** 32) | 0;
  }

  dispose(): void {
    for (const tensor of [
      this.tokens,
      this.lastRows,
      ...Object.values(this.batch),
      ...Object.values(this.sampling),
    ]) {
      if (tensor instanceof Tensor) tensor.dispose();
    }
    this.#storage.release();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
