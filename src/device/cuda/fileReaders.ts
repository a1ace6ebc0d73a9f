/**
 * Threads that read pieces of files into memory of the caller, many at once: one thread copies out of the page cache at a fraction of
 * what a GPU's bus takes. The caller blocks while it waits, so loading stays one synchronous call; tickets are handed out in order and
 * taken back in order. Knows nothing of GPUs.
 */
import { Worker } from "node:worker_threads";
import { invariant } from "../../base/index.ts";
import {
  controlBytes,
  controlOffset,
  pieceWords,
  stopped,
  wholeWord,
  type ReaderData,
} from "./fileReaderProtocol.ts";

/** How long the first thread may take to start, on a machine that is busy. */
const startLimitMs = 10_000;

export interface FilePiece {
  /** Of a file that is open in this process. */
  readonly descriptor: number;
  readonly position: number;
  readonly byteLength: number;
  /** Where the bytes go; the memory must live until the piece is taken. */
  readonly address: number;
}

export class FileReaders {
  readonly #control = new SharedArrayBuffer(controlBytes);
  readonly #words = new Int32Array(this.#control);
  /** Of every slot: which ticket it is at (odd: to be read, even: read). */
  readonly #turns: Int32Array;
  readonly #pieces: Float64Array;
  readonly #numSlots: number;
  #posted = 0;
  #taken = 0;

  constructor({ numSlots, numThreads }: { numSlots: number; numThreads: number }) {
    invariant(numThreads > 0 && numSlots >= numThreads, "a slot for every thread that reads");
    this.#numSlots = numSlots;
    const turns = new SharedArrayBuffer(4 * numSlots);
    const pieces = new SharedArrayBuffer(8 * pieceWords * numSlots);
    this.#turns = new Int32Array(turns);
    this.#pieces = new Float64Array(pieces);
    const data: ReaderData = { control: this.#control, turns, pieces, numSlots };
    const extension = import.meta.url.endsWith(".ts") ? "ts" : "js";
    const url = new URL(`./fileReaderWorker.${extension}`, import.meta.url);
    for (let thread = 0; thread < numThreads; thread++) {
      const worker = new Worker(url, { workerData: data, execArgv: [] });
      // Whoever cannot start takes no ticket; the others do its work.
      worker.on("error", () => {});
      worker.unref();
    }
  }

  /** Waits until a thread runs. False where none does: nothing may be posted then. */
  waitForStart(): boolean {
    Atomics.wait(this.#words, controlOffset.numReady, 0, startLimitMs);
    return Atomics.load(this.#words, controlOffset.numReady) > 0;
  }

  get numPending(): number {
    return this.#posted - this.#taken;
  }

  /** The slot of the next `post`. */
  get nextSlot(): number {
    return this.#posted % this.#numSlots;
  }

  /** Starts a read. */
  post({ descriptor, position, byteLength, address }: FilePiece): void {
    invariant(this.numPending < this.#numSlots, "a slot is free");
    const slot = this.nextSlot;
    this.#pieces.set([descriptor, position, byteLength, address, 0], pieceWords * slot);
    Atomics.store(this.#turns, slot, 2 * this.#posted + 1);
    Atomics.notify(this.#turns, slot);
    this.#posted++;
  }

  /** Waits for the oldest read: its slot, and whether all of its bytes are there. */
  take(): { slot: number; isWhole: boolean } {
    invariant(this.numPending > 0, "a read is under way");
    const slot = this.#taken % this.#numSlots;
    Atomics.wait(this.#turns, slot, 2 * this.#taken + 1);
    this.#taken++;
    return { slot, isWhole: this.#pieces[pieceWords * slot + wholeWord] === 1 };
  }

  /** Waits for the reads under way; the threads end by themselves and touch no memory any more. */
  dispose(): void {
    while (this.numPending > 0) this.take();
    for (let slot = 0; slot < this.#numSlots; slot++) {
      Atomics.store(this.#turns, slot, stopped);
      Atomics.notify(this.#turns, slot);
    }
  }
}
