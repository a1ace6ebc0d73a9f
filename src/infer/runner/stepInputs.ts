/**
 * The numbers that a step reads: tokens, positions, where keys and values go, and how to draw. They share one piece of device
 * memory, so that one copy brings a whole step's worth; captured graphs read them at fixed places. Block tables, which are long and change
 * seldom, are copied only where they changed.
 */
import { Storage, Tensor } from "../../tensor/index.ts";
import type { Context, PagedBatch } from "../../tensor/index.ts";
import type { StepPiece } from "../scheduler/scheduler.ts";
import type { BlockTable } from "../cache/blockTable.ts";
import type { RunnerTask } from "./task.ts";

export interface StepShape {
  /** N: rows. */
  numRows: number;
  /** Sequences: pieces of rows. */
  numSequences: number;
  /** B: draws. */
  numDraws: number;
  maxQueryLength: number;
  blockSize: number;
  maxBlocksPerSequence: number;
  /** M: slots of the cache that get what others hold. Default 0. */
  numCopies?: number;
  /** A row for each sequence, which reads nothing that another one writes in the step. Default false. */
  isDecode?: boolean;
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

/** Words of each field, in order; the block tables come last. */
function fieldWords({ numRows, numSequences, numDraws, maxBlocksPerSequence, numCopies = 0 }: StepShape) {
  return {
    seeds: 2 * numDraws,
    counters: 2 * numDraws,
    temperature: numDraws,
    topK: numDraws,
    topP: numDraws,
    minP: numDraws,
    drawRows: numDraws,
    tokens: numRows,
    sources: numRows,
    positions: numRows,
    slots: numRows,
    adapterRows: numRows,
    contextLengths: numSequences,
    queryStarts: numSequences + 1,
    copySources: numCopies,
    copySlots: numCopies,
    blockTables: numSequences * maxBlocksPerSequence,
  };
}
type FieldName = keyof ReturnType<typeof fieldWords>;
type FieldStarts = Readonly<Record<FieldName, number>>;

function layOut(shape: StepShape): { starts: FieldStarts; numWords: number } {
  const words = fieldWords(shape);
  const starts = { ...words };
  let numWords = 0;
  for (const name of Object.keys(words) as FieldName[]) {
    starts[name] = numWords;
    numWords += words[name] + (words[name] % 2);
  }
  return { starts, numWords };
}

export class StepInputs implements Disposable {
  readonly shape: StepShape;
  /** i32 (N): known tokens; `sources` says where the others come from. */
  readonly tokens: Tensor;
  /** i32 (N): place among the draws of the step before, or -1. */
  readonly sources: Tensor;
  /** i32 (N): the slot of the adapter that each row goes through, -1 for none. */
  readonly adapterRows: Tensor;
  /** i32 (B): the row that each draw is made from. */
  readonly drawRows: Tensor;
  readonly batch: PagedBatch;
  readonly sampling: SamplingTensors;
  readonly #storage: Storage;
  readonly #integers: Int32Array<ArrayBuffer>;
  readonly #floats: Float32Array<ArrayBuffer>;
  readonly #starts: FieldStarts;
  /** What each row of the block tables shows. */
  readonly #shown: { table: BlockTable | undefined; version: number }[];

  constructor(context: Context, shape: StepShape) {
    this.shape = shape;
    const { starts, numWords } = layOut(shape);
    this.#starts = starts;
    const host = new ArrayBuffer(Math.max(numWords, 1) * wordBytes);
    this.#integers = new Int32Array(host);
    this.#floats = new Float32Array(host);
    this.#storage = new Storage(context.device.allocate(host.byteLength));
    const { numRows, numSequences, numDraws, maxBlocksPerSequence, numCopies = 0 } = shape;
    const field = (name: FieldName, dims: readonly number[], dtype: "i32" | "f32" | "i64" = "i32"): Tensor =>
      new Tensor(this.#storage.retain(), { shape: dims, dtype, byteOffset: starts[name] * wordBytes });
    this.tokens = field("tokens", [numRows]);
    this.sources = field("sources", [numRows]);
    this.adapterRows = field("adapterRows", [numRows]);
    this.drawRows = field("drawRows", [numDraws]);
    this.batch = {
      numSequences,
      maxQueryLength: shape.maxQueryLength,
      isDecode: shape.isDecode,
      blockSize: shape.blockSize,
      maxBlocksPerSequence,
      positions: field("positions", [numRows]),
      slots: field("slots", [numRows]),
      blockTables: field("blockTables", [numSequences, maxBlocksPerSequence]),
      contextLengths: field("contextLengths", [numSequences]),
      queryStarts: field("queryStarts", [numSequences + 1]),
      copies:
        numCopies === 0
          ? undefined
          : { sources: field("copySources", [numCopies]), slots: field("copySlots", [numCopies]) },
    };
    this.sampling = {
      temperature: field("temperature", [numDraws], "f32"),
      topK: field("topK", [numDraws]),
      topP: field("topP", [numDraws], "f32"),
      minP: field("minP", [numDraws], "f32"),
      seeds: field("seeds", [numDraws], "i64"),
      counters: field("counters", [numDraws], "i64"),
    };
    this.#shown = Array.from({ length: numSequences }, () => ({ table: undefined, version: -1 }));
    context.device.upload(this.#storage.buffer, 0, new Uint8Array(host));
  }

  /**
   * Fills the step from its pieces and queues the copy. Sequences beyond them stand for nothing: their keys go nowhere and they read one
   * position of some block.
   */
  fill(context: Context, pieces: readonly StepPiece<RunnerTask>[]): void {
    const { numSequences } = this.shape;
    const starts = this.#starts;
    const integers = this.#integers;
    let row = 0;
    let draw = 0;
    for (let index = 0; index < numSequences; index++) {
      integers[starts.queryStarts + index] = row;
      if (index < pieces.length) {
        const piece = pieces[index];
        this.#fillRows(index, row, piece);
        if (piece.draws) this.#fillDraw(draw++, row + piece.numRows - 1, piece);
        row += piece.numRows;
      } else {
        this.#fillNothing(index, row, draw++);
        row += 1;
      }
    }
    integers[starts.queryStarts + numSequences] = row;
    for (const [place, { source, slot }] of pieces.flatMap(({ copies }) => copies).entries()) {
      integers[starts.copySources + place] = source;
      integers[starts.copySlots + place] = slot;
    }
    this.#upload(context, 0, starts.blockTables);
    this.#showTables(context, pieces);
  }

  #fillRows(index: number, firstRow: number, piece: StepPiece<RunnerTask>): void {
    const { blockSize } = this.shape;
    const { sequence, start, numRows, drawPlace } = piece;
    const { tokens, blocks, numShared } = sequence;
    const starts = this.#starts;
    const integers = this.#integers;
    for (let offset = 0; offset < numRows; offset++) {
      const position = start + offset;
      const row = firstRow + offset;
      const isKnown = position < tokens.length;
      integers[starts.tokens + row] = isKnown ? tokens[position] : 0;
      integers[starts.sources + row] = isKnown ? -1 : drawPlace;
      integers[starts.positions + row] = position;
      integers[starts.adapterRows + row] = sequence.task.adapter - 1;
      // What is shared is there already, and others read it.
      integers[starts.slots + row] =
        position < numShared
          ? -1
          : blocks.at(Math.floor(position / blockSize)) * blockSize + (position % blockSize);
    }
    integers[starts.contextLengths + index] = start + numRows;
  }

  #fillDraw(draw: number, row: number, { sequence, numDrawn }: StepPiece<RunnerTask>): void {
    const { sampling } = sequence.task;
    const starts = this.#starts;
    const floats = this.#floats;
    this.#integers[starts.drawRows + draw] = row;
    this.#integers[starts.topK + draw] = sampling.topK;
    floats[starts.temperature + draw] = sampling.temperature;
    floats[starts.topP + draw] = sampling.topP;
    floats[starts.minP + draw] = sampling.minP;
    this.#setLong(starts.seeds + 2 * draw, sampling.seed);
    this.#setLong(starts.counters + 2 * draw, numDrawn);
  }

  #fillNothing(index: number, row: number, draw: number): void {
    const starts = this.#starts;
    const integers = this.#integers;
    integers[starts.tokens + row] = 0;
    integers[starts.sources + row] = -1;
    integers[starts.positions + row] = 0;
    integers[starts.slots + row] = -1;
    integers[starts.adapterRows + row] = -1;
    integers[starts.contextLengths + index] = 1;
    integers[starts.drawRows + draw] = row;
    integers[starts.topK + draw] = 1;
    this.#floats[starts.temperature + draw] = 0;
  }

  #setLong(word: number, value: number): void {
    this.#integers[word] = value | 0;
    this.#integers[word + 1] = Math.floor(value / 2 ** 32) | 0;
  }

  #showTables(context: Context, pieces: readonly StepPiece<RunnerTask>[]): void {
    const { maxBlocksPerSequence } = this.shape;
    let first = Infinity;
    let last = -1;
    for (const [index, { sequence }] of pieces.entries()) {
      const { blocks } = sequence;
      const shown = this.#shown[index];
      if (shown.table === blocks && shown.version === blocks.version) continue;
      this.#integers.set(blocks.values(), this.#starts.blockTables + index * maxBlocksPerSequence);
      shown.table = blocks;
      shown.version = blocks.version;
      first = Math.min(first, index);
      last = index;
    }
    if (last < 0) return;
    const begin = this.#starts.blockTables;
    this.#upload(context, begin + first * maxBlocksPerSequence, begin + (last + 1) * maxBlocksPerSequence);
  }

  #upload(context: Context, beginWord: number, endWord: number): void {
    const bytes = new Uint8Array(
      this.#integers.buffer,
      beginWord * wordBytes,
      (endWord - beginWord) * wordBytes,
    );
    context.device.upload(this.#storage.buffer, beginWord * wordBytes, bytes);
  }

  dispose(): void {
    const { batch } = this;
    for (const tensor of [
      this.tokens,
      this.sources,
      this.adapterRows,
      this.drawRows,
      batch.positions,
      batch.slots,
      batch.blockTables,
      batch.contextLengths,
      batch.queryStarts,
      ...Object.values(batch.copies ?? {}),
      ...Object.values(this.sampling),
    ])
      tensor.dispose();
    this.#storage.release();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
