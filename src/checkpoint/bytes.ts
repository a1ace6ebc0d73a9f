/**
 * Random access to bytes: a file, or a part of one (a member of an archive, an item of a shard). Every format reads through this, so
 * that a zip inside a tar is read in place. Reads are positional and in pieces: files above 4 GiB and reads above 2 GiB work.
 */
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { CheckpointError, invariant, withFileErrors } from "../base/index.ts";
import type { FileRange } from "../base/index.ts";

const component = "checkpoint";
/** Node's readSync takes at most 2 GiB - 1 at once. */
const largestReadBytes = 1 << 30;

/** Fills a buffer with the bytes from `byteOffset` on. */
export type RangeReader = (into: Uint8Array, byteOffset: number) => void;

export interface ByteSource extends Disposable {
  /** For errors: the file, with the member after a colon when it is a part of one. */
  readonly path: string;
  readonly byteLength: number;
  /** Fills `into` with the bytes from `position` on. Throws CheckpointError when they are not all there, FileError. */
  readInto(into: Uint8Array, position: number): void;
  /** Where in an open file the bytes lie, for readers of many ranges at once; absent where they lie in none. */
  fileRange?(position: number, byteLength: number): FileRange;
}

class FileBytes implements ByteSource {
  readonly path: string;
  readonly byteLength: number;
  #descriptor: number | undefined;

  constructor(path: string) {
    this.path = path;
    const descriptor = withFileErrors(component, "a checkpoint file", path, () => openSync(path, "r"));
    this.#descriptor = descriptor;
    const stats = fstatSync(descriptor);
    if (!stats.isFile()) {
      closeSync(descriptor);
      throw new CheckpointError(component, `expected a file at ${path}, got a folder or a device`, {
        fields: { path },
      });
    }
    this.byteLength = stats.size;
  }

  readInto(into: Uint8Array, position: number): void {
    const descriptor = this.#descriptor;
    invariant(descriptor !== undefined, `open file ${this.path}`);
    expectRange(this, { position, byteLength: into.byteLength });
    for (let done = 0; done < into.byteLength;) {
      const piece = into.subarray(done, Math.min(done + largestReadBytes, into.byteLength));
      const numRead = withFileErrors(component, "a readable file", this.path, () =>
        readSync(descriptor, piece, 0, piece.byteLength, position + done),
      );
      // The file was cut after it was opened.
      if (numRead === 0)
        throw truncated(this.path, { needed: position + into.byteLength, got: position + done });
      done += numRead;
    }
  }

  fileRange(position: number, byteLength: number): FileRange {
    invariant(this.#descriptor !== undefined, `open file ${this.path}`);
    expectRange(this, { position, byteLength });
    return { descriptor: this.#descriptor, position, byteLength };
  }

  [Symbol.dispose](): void {
    if (this.#descriptor !== undefined) closeSync(this.#descriptor);
    this.#descriptor = undefined;
  }
}

class PartBytes implements ByteSource {
  readonly path: string;
  readonly byteLength: number;
  readonly #whole: ByteSource;
  readonly #start: number;

  constructor(
    whole: ByteSource,
    { path, start, byteLength }: { path: string; start: number; byteLength: number },
  ) {
    this.path = path;
    this.byteLength = byteLength;
    this.#whole = whole;
    this.#start = start;
    expectRange(whole, { position: start, byteLength });
  }

  readInto(into: Uint8Array, position: number): void {
    expectRange(this, { position, byteLength: into.byteLength });
    this.#whole.readInto(into, this.#start + position);
  }

  /** The whole belongs to whoever opened it. */
  [Symbol.dispose](): void {}
}

function expectRange(
  { path, byteLength: available }: { path: string; byteLength: number },
  { position, byteLength }: { position: number; byteLength: number },
): void {
  const end = position + byteLength;
  if (!Number.isSafeInteger(position) || position < 0 || byteLength < 0 || !(end <= available)) {
    throw truncated(path, { needed: end, got: available });
  }
}

function truncated(path: string, { needed, got }: { needed: number; got: number }): CheckpointError {
  return new CheckpointError(component, `expected ${needed} bytes in ${path}, got ${got}`, {
    hint: "the file is cut short or damaged; download or save it again",
    fields: { path },
  });
}

/** Opens a file; dispose closes it. Throws FileError. */
export function openFileBytes(path: string): ByteSource {
  return new FileBytes(path);
}

/** A part of `whole`, which stays its owner's. Throws CheckpointError when the part reaches beyond it. */
export function partOf(
  whole: ByteSource,
  part: { path: string; start: number; byteLength: number },
): ByteSource {
  return new PartBytes(whole, part);
}

/** All bytes of a small source. `limitBytes` guards against a damaged length asking for the machine's memory. */
export function readWhole(source: ByteSource, limitBytes: number): Uint8Array<ArrayBuffer> {
  if (source.byteLength > limitBytes) {
    throw new CheckpointError(
      component,
      `expected at most ${limitBytes} bytes in ${source.path}, got ${source.byteLength}`,
    );
  }
  const bytes = new Uint8Array(source.byteLength);
  source.readInto(bytes, 0);
  return bytes;
}
