/**
 * Writes a Megatron data set, one sequence per document, byte for byte as Megatron's own builder does, and the statistics
 * beside it. Everything goes to temporary files that are renamed by `finish`; disposing before that leaves nothing behind.
 * Memory: 8 bytes per document and a fixed buffer. Knows nothing of text or tokenizers.
 */
import { closeSync, fsyncSync, openSync, renameSync, rmSync } from "node:fs";
import { dirname } from "node:path";
import {
  DataError,
  fileError,
  invariant,
  makeFolder,
  withFileErrors,
  writeAll,
  writeFileAtomically,
  writeText,
} from "../../base/index.ts";
import { GrowingArray } from "../growing.ts";
import {
  filesOf,
  indexHeaderBytes,
  indexMagic,
  indexVersion,
  makeTokens,
  tokenDtypes,
  type WrittenDtype,
  type WrittenTokens,
} from "./format.ts";
import type { DataStatistics } from "./statistics.ts";

const bufferTokens = 1 << 18;
const indexPieceEntries = 1 << 16;

/** What the writer cannot know of the statistics. */
export type WriterStatistics = Pick<
  DataStatistics,
  "vocabSize" | "eosId" | "tokenizerSha256" | "numEmptyDocuments"
>;

export class MegatronWriter {
  readonly prefix: string;
  readonly dtype: WrittenDtype;
  numTokens = 0;
  textBytes = 0;
  readonly #temporary: string;
  readonly #buffer: WrittenTokens;
  #buffered = 0;
  #descriptor: number | undefined;
  #openTokens = 0;
  readonly #lengths = new GrowingArray((length) => new Int32Array(length));
  readonly #documentBytes = new GrowingArray((length) => new Uint32Array(length));

  /** Opens `<prefix>.bin` for writing; its folder is made. Throws FileError. */
  constructor(prefix: string, dtype: WrittenDtype) {
    this.prefix = prefix;
    this.dtype = dtype;
    this.#buffer = makeTokens(dtype, bufferTokens);
    this.#temporary = `${filesOf(prefix).bin}.${process.pid}.part`;
    makeFolder("data", dirname(this.#temporary));
    this.#descriptor = withFileErrors("data", "a writable file", this.#temporary, () =>
      openSync(this.#temporary, "w"),
    );
  }

  get numDocuments(): number {
    return this.#lengths.length;
  }

  /** A whole document: its tokens (end-of-document included) and the UTF-8 bytes of its text. */
  addDocument(tokens: ArrayLike<number>, textBytes: number): void {
    this.addPart(tokens);
    this.endDocument(textBytes);
  }

  /** Tokens of the document that is being written. */
  addPart(tokens: ArrayLike<number>): void {
    this.#openTokens += tokens.length;
    for (let begin = 0; begin < tokens.length;) {
      const count = Math.min(tokens.length - begin, bufferTokens - this.#buffered);
      this.#buffer.set(slice(tokens, begin, begin + count), this.#buffered);
      this.#buffered += count;
      begin += count;
      if (this.#buffered === bufferTokens) this.#flush();
    }
  }

  /** Ends the document whose parts were added; one without tokens leaves no trace. Throws DataError for an absurd length. */
  endDocument(textBytes: number): void {
    if (this.#openTokens === 0) return;
    if (this.#openTokens > 2 ** 31 - 1 || textBytes > 2 ** 32 - 1) {
      throw new DataError(
        "data",
        `expected documents below 2^31 tokens for ${filesOf(this.prefix).bin}, got one of ${this.#openTokens} tokens`,
        { hint: "split the text into several documents" },
      );
    }
    this.#lengths.push(this.#openTokens);
    this.#documentBytes.push(textBytes);
    this.numTokens += this.#openTokens;
    this.textBytes += textBytes;
    this.#openTokens = 0;
  }

  #flush(): void {
    invariant(this.#descriptor !== undefined, "a finished MegatronWriter was written to");
    const { buffer, BYTES_PER_ELEMENT } = this.#buffer;
    try {
      writeAll(this.#descriptor, new Uint8Array(buffer, 0, this.#buffered * BYTES_PER_ELEMENT));
    } catch (error) {
      throw fileError("data", "a writable file", this.#temporary, error);
    }
    this.#buffered = 0;
  }

  /** Writes what is left and the index, and puts all files in their places, the index last. Throws FileError. */
  finish(known: WriterStatistics): DataStatistics {
    invariant(this.#openTokens === 0, "a MegatronWriter was finished inside a document");
    this.#flush();
    const descriptor = this.#descriptor;
    invariant(descriptor !== undefined, "a MegatronWriter was finished twice");
    const files = filesOf(this.prefix);
    withFileErrors("data", "a writable file", this.#temporary, () => fsyncSync(descriptor));
    this.#close();
    withFileErrors("data", "a writable file", files.bin, () => renameSync(this.#temporary, files.bin));
    const { numDocuments, numTokens, textBytes, dtype } = this;
    const statistics: DataStatistics = {
      format: "nautilus-tokens",
      version: 1,
      numDocuments,
      numEmptyDocuments: known.numEmptyDocuments,
      numTokens,
      textBytes,
      dtype,
      vocabSize: known.vocabSize,
      eosId: known.eosId,
      tokenizerSha256: known.tokenizerSha256,
    };
    writeText("data", files.statistics, `${JSON.stringify(statistics, undefined, 2)}\n`);
    writeFileAtomically("data", files.documentBytes, (file) =>
      writeAll(file, bytesOf(this.#documentBytes.view())),
    );
    writeIndex(files.idx, this.#lengths.view(), this.dtype);
    return statistics;
  }

  #close(): void {
    if (this.#descriptor !== undefined) closeSync(this.#descriptor);
    this.#descriptor = undefined;
  }

  /** Drops what was written, unless `finish` has put it in place. */
  [Symbol.dispose](): void {
    if (this.#descriptor === undefined) return;
    this.#close();
    rmSync(this.#temporary, { force: true });
  }
}

/** Writes `<prefix>.idx` for documents of `lengths` tokens that lie one after the other. Throws FileError. */
export function writeIndex(path: string, lengths: Int32Array, dtype: WrittenDtype): void {
  writeFileAtomically("data", path, (descriptor) => {
    const header = Buffer.alloc(indexHeaderBytes);
    indexMagic.copy(header);
    header.writeBigUInt64LE(BigInt(indexVersion), 9);
    header.writeUInt8(tokenDtypes[dtype].code, 17);
    header.writeBigUInt64LE(BigInt(lengths.length), 18);
    header.writeBigUInt64LE(BigInt(lengths.length + 1), 26);
    writeAll(descriptor, header);
    writeAll(descriptor, bytesOf(lengths));
    let pointer = 0;
    writeInt64s(descriptor, lengths.length, (index) => {
      const current = pointer;
      pointer += lengths[index] * tokenDtypes[dtype].bytes;
      return current;
    });
    writeInt64s(descriptor, lengths.length + 1, (index) => index);
  });
}

/** Writes `count` whole numbers below 2^53 as int64, in pieces. */
function writeInt64s(descriptor: number, count: number, valueAt: (index: number) => number): void {
  const words = new Uint32Array(2 * indexPieceEntries);
  for (let begin = 0; begin < count; begin += indexPieceEntries) {
    const entries = Math.min(indexPieceEntries, count - begin);
    for (let entry = 0; entry < entries; entry++) {
      const value = valueAt(begin + entry);
      words[2 * entry] = value >>> 0;
      words[2 * entry + 1] = Math.floor(value / 2 ** 32);
    }
    writeAll(descriptor, bytesOf(words.subarray(0, 2 * entries)));
  }
}

function bytesOf(array: Int32Array | Uint32Array): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

function slice(tokens: ArrayLike<number>, begin: number, end: number): ArrayLike<number> {
  if (begin === 0 && end === tokens.length) return tokens;
  if (tokens instanceof Int32Array || tokens instanceof Uint16Array) return tokens.subarray(begin, end);
  return Array.prototype.slice.call(tokens, begin, end);
}
