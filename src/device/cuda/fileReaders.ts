/**
 * Reads of pieces of files into memory of the caller, many at once, by threads of the C library (POSIX asynchronous I/O): one thread
 * copies out of the page cache at a fraction of what a GPU's bus takes, and threads of the library's own start in microseconds. The
 * caller blocks while it waits, so loading stays one synchronous call. Knows nothing of GPUs.
 * Source: aio(7); struct aiocb of glibc on machines of 64 bits.
 */
import { invariant } from "../../base/index.ts";
import { viewMemory } from "../ffi.ts";
import { NativeWords } from "./native.ts";
import type { SystemLibrary } from "./systemLibrary.ts";

/** Reads that a thread has at once, one after the other: it goes on while the caller looks after the one that ended. */
export const readsPerThread = 2;

/** Where the members of a control block (struct aiocb) lie that are set here; the rest is zero. */
const controlBlock = {
  byteLength: 168,
  descriptor: 0,
  memory: 16,
  length: 24,
  notification: 44,
  position: 128,
};
const cacheLineBytes = 64;
const strideBytes = Math.ceil(controlBlock.byteLength / cacheLineBytes) * cacheLineBytes;
const noNotification = 1;
/** EINPROGRESS. */
const inProgress = 115;
/** F_DUPFD_CLOEXEC: a duplicate that programs started from here do not get. */
const duplicateClosedOnExec = 1030;

export interface FilePiece {
  /** Of a file that is open in this process. */
  readonly descriptor: number;
  readonly position: number;
  readonly byteLength: number;
  /** Where the bytes go; the memory must live until the read has ended. */
  readonly address: number;
}

export interface EndedRead {
  readonly slot: number;
  /** Whether all bytes are there; what went wrong otherwise is found by whoever reads the range again. */
  readonly isWhole: boolean;
}

interface PendingRead {
  readonly file: ReadFile;
  readonly thread: number;
  readonly byteLength: number;
}

interface ReadFile {
  readonly descriptor: number;
  /** By thread; a number of its own for each, because reads of one number run one after the other. */
  readonly duplicates: number[];
  numPending: number;
}

export class FileReaders {
  readonly #library: SystemLibrary;
  readonly #numSlots: number;
  /** Control blocks by slot. Native memory: a thread that is ended in the middle of a read must not take it along. */
  readonly #blocks: number;
  readonly #fields: DataView;
  /** Addresses of the control blocks of pending reads, by slot. */
  readonly #waitList: NativeWords;
  readonly #pending: (PendingRead | undefined)[];
  readonly #numPendingOfThread: number[];
  readonly #files = new Map<number, ReadFile>();

  constructor(library: SystemLibrary, { numSlots, numThreads }: { numSlots: number; numThreads: number }) {
    invariant(numThreads > 0 && numSlots > 0, "threads and places to read to");
    this.#library = library;
    this.#numSlots = numSlots;
    this.#blocks = library.aligned_alloc(cacheLineBytes, numSlots * strideBytes);
    invariant(this.#blocks > 0, "memory for control blocks");
    const memory = viewMemory(this.#blocks, numSlots * strideBytes);
    new Uint8Array(memory).fill(0);
    this.#fields = new DataView(memory);
    this.#waitList = new NativeWords(numSlots);
    this.#pending = Array.from({ length: numSlots }, () => undefined);
    this.#numPendingOfThread = Array.from({ length: numThreads }, () => 0);
  }

  get numPending(): number {
    return this.#numPendingOfThread.reduce((sum, count) => sum + count, 0);
  }

  /** Whether a thread would soon come to one more read. */
  get hasRoom(): boolean {
    return this.#numPendingOfThread.some((count) => count < readsPerThread);
  }

  /** Starts a read under the number of a free slot. False where the system starts none. */
  post(slot: number, { descriptor, position, byteLength, address }: FilePiece): boolean {
    invariant(slot < this.#numSlots && this.#pending[slot] === undefined, `slot ${slot} is free`);
    const thread = this.#numPendingOfThread.indexOf(Math.min(...this.#numPendingOfThread));
    const file = this.#fileOf(descriptor);
    const at = slot * strideBytes;
    this.#fields.setInt32(at + controlBlock.descriptor, this.#duplicate(file, thread), true);
    this.#fields.setBigUint64(at + controlBlock.memory, BigInt(address), true);
    this.#fields.setBigUint64(at + controlBlock.length, BigInt(byteLength), true);
    this.#fields.setInt32(at + controlBlock.notification, noNotification, true);
    this.#fields.setBigInt64(at + controlBlock.position, BigInt(position), true);
    if (this.#library.aio_read(this.#blocks + at) !== 0) return false;
    this.#waitList.setWord(slot, this.#blocks + at);
    this.#pending[slot] = { file, thread, byteLength };
    this.#numPendingOfThread[thread]++;
    file.numPending++;
    return true;
  }

  /** Waits until a read has ended. Gives all that have, in no order; their slots are free. */
  take(): EndedRead[] {
    invariant(this.numPending > 0, "a read is under way");
    for (;;) {
      // A signal ends the wait as well.
      this.#library.aio_suspend(this.#waitList.address, this.#numSlots, 0);
      const ended = this.#pending.flatMap((read, slot) => {
        if (read === undefined) return [];
        const block = this.#blocks + slot * strideBytes;
        const error = this.#library.aio_error(block);
        if (error === inProgress) return [];
        const isWhole = this.#library.aio_return(block) === read.byteLength && error === 0;
        this.#waitList.setWord(slot, 0);
        this.#pending[slot] = undefined;
        this.#numPendingOfThread[read.thread]--;
        read.file.numPending--;
        return [{ slot, isWhole }];
      });
      if (ended.length > 0) return ended;
    }
  }

  /** Waits for the reads under way; no memory of the caller is touched any more. */
  dispose(): void {
    while (this.numPending > 0) this.take();
    for (const file of this.#files.values()) this.#closeDuplicates(file);
    this.#library.free(this.#blocks);
  }

  /** Files come one after the other: duplicates of one that is done are closed when the next comes. */
  #fileOf(descriptor: number): ReadFile {
    const known = this.#files.get(descriptor);
    if (known !== undefined) return known;
    for (const file of this.#files.values()) if (file.numPending === 0) this.#closeDuplicates(file);
    const file = { descriptor, duplicates: [descriptor], numPending: 0 };
    this.#files.set(descriptor, file);
    return file;
  }

  /** Where no further descriptor is to be had, reads go one after the other through the file's own. */
  #duplicate({ descriptor, duplicates }: ReadFile, thread: number): number {
    if (duplicates[thread] === undefined) {
      const duplicate = this.#library.fcntl(descriptor, duplicateClosedOnExec, 0);
      duplicates[thread] = duplicate < 0 ? descriptor : duplicate;
    }
    return duplicates[thread];
  }

  #closeDuplicates({ descriptor, duplicates }: ReadFile): void {
    for (const duplicate of duplicates)
      if (duplicate !== undefined && duplicate !== descriptor) this.#library.close(duplicate);
    this.#files.delete(descriptor);
  }
}
