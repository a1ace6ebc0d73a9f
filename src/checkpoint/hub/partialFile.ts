/**
 * A file on its way: its bytes in their final places, and beside them a small record of how far each piece has come, so that any
 * process can go on where another was killed. The names are ours alone: Python's library appends to or trusts partial files of its own.
 */
import { existsSync, renameSync, rmSync } from "node:fs";
import { open } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { dirname } from "node:path";
import { z } from "zod";
import { fileError, makeFolder, readJson, withFileErrors, writeText } from "../../base/index.ts";

const saveEveryMs = 1000;
const writeBytes = 1 << 20;

const recordSchema = z.strictObject({
  sizeBytes: z.number().int().nonnegative(),
  pieceBytes: z.number().int().positive(),
  done: z.array(z.number().int().nonnegative()),
});
type PartialRecord = z.output<typeof recordSchema>;

export interface PartialFileOptions {
  /** Where the file will be. */
  path: string;
  sizeBytes: number;
  pieceBytes: number;
  /** What the user knows the file as, for messages. */
  label: string;
}

export class PartialFile implements AsyncDisposable {
  readonly sizeBytes: number;
  readonly bytesPath: string;
  readonly #options: PartialFileOptions;
  readonly #recordPath: string;
  readonly #handle: FileHandle;
  #record: PartialRecord;
  #lastSaveMs = performance.now();
  #isOpen = true;

  private constructor(options: PartialFileOptions, handle: FileHandle, record: PartialRecord) {
    this.#options = options;
    this.sizeBytes = options.sizeBytes;
    this.bytesPath = bytesPathOf(options.path);
    this.#recordPath = recordPathOf(options.path);
    this.#handle = handle;
    this.#record = record;
  }

  /** Opens what is there of a file, or starts it. Throws FileError. */
  static async open(options: PartialFileOptions): Promise<PartialFile> {
    const bytesPath = bytesPathOf(options.path);
    makeFolder("hub", dirname(options.path));
    const record = existsSync(bytesPath) ? readRecord(options) : undefined;
    try {
      const handle = await open(bytesPath, record === undefined ? "w+" : "r+");
      return new PartialFile(options, handle, record ?? freshRecord(options));
    } catch (error) {
      throw fileError("hub", "a writable file", options.label, error);
    }
  }

  get numPieces(): number {
    return this.#record.done.length;
  }

  get doneBytes(): number {
    return this.#record.done.reduce((total, bytes) => total + bytes, 0);
  }

  /** What is missing of a piece: [start, end), empty when it is whole. */
  missing(piece: number): { start: number; end: number } {
    const { pieceBytes, done } = this.#record;
    const start = piece * pieceBytes + done[piece];
    return { start, end: Math.min(this.sizeBytes, (piece + 1) * pieceBytes) };
  }

  /** Forgets everything; the file is then one piece if `isOnePiece`. */
  restart({ isOnePiece }: { isOnePiece: boolean }): void {
    const pieceBytes = isOnePiece ? Math.max(1, this.sizeBytes) : this.#options.pieceBytes;
    this.#record = freshRecord({ ...this.#options, pieceBytes });
    this.#save();
  }

  /** Writes a stream to where the piece stops now; `onBytes` hears of each write. Throws FileError and what the stream throws. */
  async append(
    piece: number,
    pieces: AsyncIterable<Uint8Array>,
    onBytes: (bytes: number) => void,
  ): Promise<void> {
    // Small network reads are gathered: a write per megabyte, not per packet.
    const buffer = Buffer.allocUnsafe(Math.min(writeBytes, Math.max(1, this.sizeBytes)));
    let fill = 0;
    const flush = async (): Promise<void> => {
      if (fill === 0) return;
      await this.#write(buffer.subarray(0, fill), this.missing(piece).start);
      this.#record.done[piece] += fill;
      onBytes(fill);
      fill = 0;
      if (performance.now() - this.#lastSaveMs > saveEveryMs) this.#save();
    };
    try {
      for await (const bytes of pieces) {
        const { start, end } = this.missing(piece);
        const wanted = bytes.subarray(0, end - start - fill);
        for (let offset = 0; offset < wanted.byteLength;) {
          const length = Math.min(buffer.byteLength - fill, wanted.byteLength - offset);
          buffer.set(wanted.subarray(offset, offset + length), fill);
          fill += length;
          offset += length;
          if (fill === buffer.byteLength) await flush();
        }
        if (wanted.byteLength < bytes.byteLength) break;
      }
    } finally {
      await flush();
    }
  }

  async #write(bytes: Uint8Array, position: number): Promise<void> {
    try {
      for (let offset = 0; offset < bytes.byteLength;) {
        const { bytesWritten } = await this.#handle.write(
          bytes,
          offset,
          bytes.byteLength - offset,
          position + offset,
        );
        offset += bytesWritten;
      }
    } catch (error) {
      throw fileError("hub", "room for the file", this.#options.label, error);
    }
  }

  /** Puts the whole file in its place. */
  async finish(): Promise<void> {
    await this.#handle.sync();
    await this.#close();
    withFileErrors("hub", "a writable file", this.#options.label, () =>
      renameSync(this.bytesPath, this.#options.path),
    );
    rmSync(this.#recordPath, { force: true });
  }

  /** Throws the bytes away. */
  async discard(): Promise<void> {
    await this.#close();
    rmSync(this.bytesPath, { force: true });
    rmSync(this.#recordPath, { force: true });
  }

  /** Closes the file; what is there stays for the next attempt. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#isOpen) return;
    await this.#close();
    this.#save();
  }

  async #close(): Promise<void> {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    await this.#handle.close();
  }

  #save(): void {
    this.#lastSaveMs = performance.now();
    try {
      writeText("hub", this.#recordPath, JSON.stringify(this.#record));
    } catch {
      // On a full disk the old record stays; it claims less than is there, never more.
    }
  }
}

const bytesPathOf = (path: string): string => `${path}.nautilus.incomplete`;
const recordPathOf = (path: string): string => `${path}.nautilus.json`;

/** Bytes that a killed pull has left of the file that will be at `path`. */
export function partialBytes(options: PartialFileOptions): number {
  if (!existsSync(bytesPathOf(options.path))) return 0;
  return readRecord(options)?.done.reduce((total, bytes) => total + bytes, 0) ?? 0;
}

function freshRecord({ sizeBytes, pieceBytes }: { sizeBytes: number; pieceBytes: number }): PartialRecord {
  const numPieces = Math.ceil(sizeBytes / pieceBytes);
  return { sizeBytes, pieceBytes, done: Array.from({ length: numPieces }, () => 0) };
}

/** The record of an earlier process, unless it is damaged or of another file. */
function readRecord({ path, sizeBytes }: PartialFileOptions): PartialRecord | undefined {
  if (!existsSync(recordPathOf(path))) return undefined;
  try {
    const record = recordSchema.parse(readJson("hub", recordPathOf(path)));
    const { pieceBytes, done } = record;
    const fits = done.every((bytes, piece) => bytes <= Math.min(pieceBytes, sizeBytes - piece * pieceBytes));
    return record.sizeBytes === sizeBytes && done.length === Math.ceil(sizeBytes / pieceBytes) && fits
      ? record
      : undefined;
  } catch {
    return undefined;
  }
}
