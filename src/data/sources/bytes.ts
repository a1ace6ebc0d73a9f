/**
 * The bytes of a file as a stream, decompressed where its first bytes (or its name) say gzip or Zstandard. Memory is
 * constant. A file that is cut short or damaged ends in a DataError that names it. Knows nothing of what the bytes mean.
 */
import { createReadStream } from "node:fs";
import { pipeline, Readable, type Transform } from "node:stream";
import { constants, createGunzip, createZstdDecompress } from "node:zlib";
import { DataError, fileError, messageOf, systemErrorCode } from "../../base/index.ts";
import { ZstdFrameScanner } from "./zstdFrames.ts";

const chunkBytes = 1 << 19;

/** Yields the decompressed bytes; `onRead` hears of the bytes taken from the disk. Throws FileError, DataError. */
export async function* readBytes(
  file: string,
  onRead: (numBytes: number) => void = () => {},
): AsyncGenerator<Uint8Array> {
  const compression = { name: "none" };
  try {
    yield* decompress(file, readRaw(file, onRead), compression);
  } catch (error) {
    throw explain(file, compression.name, error);
  }
}

/** `yield` inside a try of ours would also catch what a consumer throws in; reading stays in a generator of its own. */
async function* readRaw(file: string, onRead: (numBytes: number) => void): AsyncGenerator<Buffer> {
  for await (const chunk of createReadStream(file, { highWaterMark: chunkBytes })) {
    const bytes: Buffer = chunk;
    onRead(bytes.length);
    yield bytes;
  }
}

async function* decompress(
  file: string,
  chunks: AsyncGenerator<Buffer>,
  compression: { name: string },
): AsyncGenerator<Uint8Array> {
  const first = await chunks.next();
  const head = first.done === true ? Buffer.alloc(0) : first.value;
  const all = prepend(head, chunks);
  if (/\.gz$/i.test(file) || (head[0] === 0x1f && head[1] === 0x8b)) {
    compression.name = "gzip";
    yield* through(all, createGunzip({ chunkSize: chunkBytes }));
  } else if (/\.zst$/i.test(file) || (head.length >= 4 && head.readUInt32LE(0) === 0xfd2fb528)) {
    compression.name = "Zstandard";
    yield* decompressFrames(all);
  } else yield* all;
}

async function* prepend(head: Buffer, rest: AsyncGenerator<Buffer>): AsyncGenerator<Buffer> {
  if (head.length > 0) yield head;
  yield* rest;
}

async function* decompressFrames(chunks: AsyncIterable<Buffer>): AsyncGenerator<Uint8Array> {
  const scanner = new ZstdFrameScanner();
  const pieces = (async function* () {
    for await (const chunk of chunks) yield* scanner.push(chunk);
  })();
  let numFrames = 0;
  for (let piece = await pieces.next(); piece.done !== true; piece = await pieces.next()) {
    const firstPiece = piece.value;
    const frame = async function* (): AsyncGenerator<Uint8Array> {
      yield firstPiece.bytes;
      if (firstPiece.endsFrame) return;
      for (let next = await pieces.next(); next.done !== true; next = await pieces.next()) {
        yield next.value.bytes;
        if (next.value.endsFrame) return;
      }
    };
    // Windows of up to 2 GiB, as written by `zstd --long=31`.
    const params = { [constants.ZSTD_d_windowLogMax]: 31 };
    yield* through(frame(), createZstdDecompress({ chunkSize: chunkBytes, params }));
    numFrames++;
  }
  // A decompressor that is given nothing says what an empty .gz says.
  if (numFrames === 0) yield* through(Readable.from([]), createZstdDecompress());
}

async function* through(chunks: AsyncIterable<Uint8Array>, transform: Transform): AsyncGenerator<Uint8Array> {
  // pipeline hands errors of the source on; they arrive at the reader of the transform.
  pipeline(Readable.from(chunks, { objectMode: false }), transform, () => {});
  for await (const chunk of transform) {
    const bytes: Buffer = chunk;
    yield bytes;
  }
}

function explain(file: string, compression: string, error: unknown): unknown {
  const code = systemErrorCode(error) ?? "";
  if (code === "Z_BUF_ERROR") {
    return new DataError("data", `expected a whole ${compression} file at ${file}, got one that ends early`, {
      hint: "it is truncated: fetch or make it again",
      cause: error,
      fields: { file },
    });
  }
  if (code.startsWith("Z_") || code.startsWith("ZSTD_")) {
    return new DataError("data", `expected ${compression} data in ${file}, got: ${messageOf(error)}`, {
      hint: "the file is damaged, or its name says another compression than it has",
      cause: error,
      fields: { file },
    });
  }
  return fileError("data", "readable data", file, error);
}
