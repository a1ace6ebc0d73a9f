/**
 * Reads a Megatron data set: the index is held in memory (12 bytes per sequence), tokens are read at their positions in the
 * file, so that `.bin` may be of any size. A file up to `residentBytes` is kept in memory after the first read; beyond
 * that the system's page cache serves. Every number of the index is checked when it is opened.
 */
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { DataError, formatBytes, invariant, withFileErrors } from "../../base/index.ts";
import {
  dtypeFromCode,
  filesOf,
  indexHeaderBytes,
  indexMagic,
  indexVersion,
  type TokenDtype,
  tokenDtypes,
} from "./format.ts";

const pieceBytes = 1 << 24;
const defaultResidentBytes = 1 << 26;

export interface ReaderOptions {
  /** Files up to this size are kept in memory once read; 0 always reads the file. Default 64 MiB. */
  residentBytes?: number;
}

interface Index {
  dtype: TokenDtype;
  lengths: Int32Array;
  pointers: Float64Array;
  numTokens: number;
}

export class MegatronReader {
  readonly prefix: string;
  readonly dtype: TokenDtype;
  /** Tokens of each sequence. */
  readonly lengths: Int32Array;
  readonly numTokens: number;
  readonly #pointers: Float64Array;
  readonly #itemBytes: number;
  #descriptor: number | undefined;
  #resident: Uint8Array | undefined;
  #scratch = new Uint8Array(1 << 16);
  readonly #keepResident: boolean;

  /** Opens `<prefix>.bin` and `<prefix>.idx`. Throws FileError, DataError. */
  constructor(prefix: string, options: ReaderOptions = {}) {
    this.prefix = prefix;
    const { bin, idx } = filesOf(prefix);
    const { dtype, lengths, pointers, numTokens } = readIndex(idx);
    this.dtype = dtype;
    this.lengths = lengths;
    this.numTokens = numTokens;
    this.#pointers = pointers;
    this.#itemBytes = tokenDtypes[dtype].bytes;
    const descriptor = withFileErrors("data", "token ids", bin, () => openSync(bin, "r"));
    try {
      const sizeBytes = fstatSync(descriptor).size;
      this.#checkExtent(bin, sizeBytes);
      this.#keepResident = sizeBytes <= (options.residentBytes ?? defaultResidentBytes);
    } catch (error) {
      closeSync(descriptor);
      throw error;
    }
    this.#descriptor = descriptor;
  }

  get numSequences(): number {
    return this.lengths.length;
  }

  #checkExtent(bin: string, sizeBytes: number): void {
    for (let sequence = 0; sequence < this.lengths.length; sequence++) {
      const begin = this.#pointers[sequence];
      const end = begin + this.lengths[sequence] * this.#itemBytes;
      if (begin >= 0 && end <= sizeBytes) continue;
      throw new DataError(
        "data",
        `expected at least ${end} bytes in ${bin} (sequence ${sequence} of its .idx ends there), got ${sizeBytes}`,
        { hint: "one of the two files is truncated or belongs to other data: prepare them again" },
      );
    }
  }

  /**
   * Puts tokens `offset` .. `offset + count` of a sequence into `out` at `at`. Throws FileError; a DataError where the file
   * has become shorter.
   */
  read(sequence: number, offset: number, count: number, out: Int32Array, at = 0): void {
    invariant(
      offset >= 0 && count >= 0 && offset + count <= this.lengths[sequence],
      `tokens ${offset}..${offset + count} were read of a sequence of ${this.lengths[sequence]}`,
    );
    if (count === 0) return;
    const begin = this.#pointers[sequence] + offset * this.#itemBytes;
    if (this.#keepResident) {
      this.#resident ??= this.#readAll();
      convert(this.#resident, begin, { dtype: this.dtype, count, out, at });
      return;
    }
    const numBytes = count * this.#itemBytes;
    if (this.#scratch.length < numBytes) this.#scratch = new Uint8Array(2 * numBytes);
    this.#readAt(this.#scratch, numBytes, begin);
    convert(this.#scratch, 0, { dtype: this.dtype, count, out, at });
  }

  /** All tokens of a sequence. */
  sequence(sequence: number): Int32Array {
    const out = new Int32Array(this.lengths[sequence]);
    this.read(sequence, 0, out.length, out);
    return out;
  }

  #readAll(): Uint8Array {
    invariant(this.#descriptor !== undefined, "a closed MegatronReader was read");
    const bytes = new Uint8Array(fstatSync(this.#descriptor).size);
    this.#readAt(bytes, bytes.length, 0);
    return bytes;
  }

  #readAt(into: Uint8Array, numBytes: number, position: number): void {
    const descriptor = this.#descriptor;
    invariant(descriptor !== undefined, "a closed MegatronReader was read");
    readFully(descriptor, into, { numBytes, position, path: filesOf(this.prefix).bin });
  }

  /** Closes the file. */
  close(): void {
    if (this.#descriptor !== undefined) closeSync(this.#descriptor);
    this.#descriptor = undefined;
    this.#resident = undefined;
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** Token ids of any integer dtype, at any byte position, as int32. */
function convert(
  bytes: Uint8Array,
  begin: number,
  to: { dtype: TokenDtype; count: number; out: Int32Array; at: number },
): void {
  const { dtype, count, out, at } = to;
  const width = tokenDtypes[dtype].bytes;
  // Typed arrays begin at multiples of their width; pointers of a foreign file need not.
  const aligned = (bytes.byteOffset + begin) % width === 0;
  const source = aligned ? bytes : bytes.slice(begin, begin + count * width);
  const start = source.byteOffset + (aligned ? begin : 0);
  switch (dtype) {
    case "uint16":
      out.set(new Uint16Array(source.buffer, start, count), at);
      return;
    case "int32":
      out.set(new Int32Array(source.buffer, start, count), at);
      return;
    case "uint8":
      out.set(new Uint8Array(source.buffer, start, count), at);
      return;
    case "int8":
      out.set(new Int8Array(source.buffer, start, count), at);
      return;
    case "int16":
      out.set(new Int16Array(source.buffer, start, count), at);
      return;
    case "int64": {
      const words = new BigInt64Array(source.buffer, start, count);
      // An id beyond int32 becomes one that no vocabulary holds, instead of wrapping round to a valid one.
      for (let i = 0; i < count; i++) {
        const value = Number(words[i]);
        out[at + i] = value >= -(2 ** 31) && value < 2 ** 31 ? value : 2 ** 31 - 1;
      }
    }
  }
}

function readFully(
  descriptor: number,
  into: Uint8Array,
  what: { numBytes: number; position: number; path: string },
): void {
  for (let done = 0; done < what.numBytes;) {
    const count = Math.min(pieceBytes, what.numBytes - done);
    const length = withFileErrors("data", "token ids", what.path, () =>
      readSync(descriptor, into, done, count, what.position + done),
    );
    if (length === 0) {
      throw new DataError(
        "data",
        `expected ${what.numBytes} bytes at ${what.position} of ${what.path}, got ${done}`,
        { hint: "the file was shortened while it was in use" },
      );
    }
    done += length;
  }
}

/** Reads and checks an index. Throws FileError, DataError. */
function readIndex(path: string): Index {
  const descriptor = withFileErrors("data", "the index of token ids", path, () => openSync(path, "r"));
  try {
    const { dtype, numSequences } = readHeader(descriptor, path, fstatSync(descriptor).size);
    const lengths = new Int32Array(numSequences);
    readFully(descriptor, new Uint8Array(lengths.buffer), {
      numBytes: lengths.byteLength,
      position: indexHeaderBytes,
      path,
    });
    const pointers = readPointers(descriptor, path, numSequences);
    let numTokens = 0;
    for (let sequence = 0; sequence < numSequences; sequence++) {
      if (lengths[sequence] < 0) {
        throw new DataError(
          "data",
          `expected lengths of 0 or more in ${path}, got ${lengths[sequence]} for sequence ${sequence}`,
          { hint: "the index is damaged: prepare the data again" },
        );
      }
      numTokens += lengths[sequence];
    }
    return { dtype, lengths, pointers, numTokens };
  } finally {
    closeSync(descriptor);
  }
}

function readHeader(
  descriptor: number,
  path: string,
  sizeBytes: number,
): { dtype: TokenDtype; numSequences: number } {
  const header = Buffer.alloc(indexHeaderBytes);
  if (sizeBytes < indexHeaderBytes) {
    throw new DataError(
      "data",
      `expected an index of ${indexHeaderBytes} bytes or more at ${path}, got ${sizeBytes}`,
      { hint: "the file is truncated: prepare the data again" },
    );
  }
  readFully(descriptor, header, { numBytes: indexHeaderBytes, position: 0, path });
  if (!header.subarray(0, 9).equals(indexMagic)) {
    throw new DataError(
      "data",
      `expected an index that begins with MMIDIDX at ${path}, got ${JSON.stringify(header.toString("latin1", 0, 9))}`,
      { hint: "is it the .idx of a Megatron data set?" },
    );
  }
  const version = header.readBigUInt64LE(9);
  if (version !== BigInt(indexVersion)) {
    throw new DataError("data", `expected index version ${indexVersion} in ${path}, got ${version}`);
  }
  const dtype = dtypeFromCode(header.readUInt8(17), path);
  const numSequences = header.readBigUInt64LE(18);
  const numBoundaries = header.readBigUInt64LE(26);
  const expected = BigInt(indexHeaderBytes) + 12n * numSequences + 8n * numBoundaries;
  const actual = BigInt(sizeBytes);
  // Multimodal data appends a mode byte per sequence.
  if (actual !== expected && actual !== expected + numSequences) {
    const wanted = expected < 2n ** 53n ? formatBytes(Number(expected)) : "an absurd size";
    throw new DataError(
      "data",
      `expected ${wanted} in ${path} for its ${numSequences} sequences and ${numBoundaries} document boundaries, got ${formatBytes(sizeBytes)}`,
      { hint: "the index is truncated or damaged: prepare the data again" },
    );
  }
  return { dtype, numSequences: Number(numSequences) };
}

/** The byte positions of the sequences, int64 in the file, exact in float64 up to 2^53. */
function readPointers(descriptor: number, path: string, numSequences: number): Float64Array {
  const pointers = new Float64Array(numSequences);
  const words = new Int32Array(1 << 17);
  const entriesPerPiece = words.length / 2;
  for (let begin = 0; begin < numSequences; begin += entriesPerPiece) {
    const entries = Math.min(entriesPerPiece, numSequences - begin);
    readFully(descriptor, new Uint8Array(words.buffer), {
      numBytes: 8 * entries,
      position: indexHeaderBytes + 4 * numSequences + 8 * begin,
      path,
    });
    for (let entry = 0; entry < entries; entry++) {
      pointers[begin + entry] = words[2 * entry + 1] * 2 ** 32 + (words[2 * entry] >>> 0);
    }
  }
  return pointers;
}
