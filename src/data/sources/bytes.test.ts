import { gzipSync, zstdCompressSync } from "node:zlib";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Scratch } from "../../../test/data/scratch.ts";
import { readBytes } from "./bytes.ts";
import { ZstdFrameScanner } from "./zstdFrames.ts";

/** Whether `file` reads as `expected`; comparing large buffers element by element takes seconds. */
async function reads(file: string, expected: Buffer): Promise<boolean> {
  return (await read(file)).equals(expected);
}

async function read(path: string): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of readBytes(path)) chunks.push(chunk);
  return Buffer.concat(chunks);
}

const text = Buffer.from(Array.from({ length: 60_000 }, (_, i) => `line ${i} ${Math.sin(i)}\n`).join(""));

/** A skippable frame and an empty one, as parallel compressors and appenders leave them. */
const skippable = Buffer.from([0x53, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3]);
const emptySkippable = Buffer.from([0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0]);

describe("readBytes", () => {
  it("reads plain, gzip and Zstandard files, by their content or their name", async () => {
    using scratch = new Scratch();
    expect(await reads(scratch.write("a.txt", text), text)).toBe(true);
    expect(await reads(scratch.write("a.gz", gzipSync(text)), text)).toBe(true);
    expect(await reads(scratch.write("unnamed", gzipSync(text)), text)).toBe(true);
    expect(await reads(scratch.write("a.zst", zstdCompressSync(text)), text)).toBe(true);
    expect(await reads(scratch.write("unnamed2", zstdCompressSync(text)), text)).toBe(true);
    expect(await read(scratch.write("empty.txt", ""))).toHaveLength(0);
  });

  it("reads all members of concatenated files", async () => {
    using scratch = new Scratch();
    const three = Buffer.concat([text, text.subarray(0, 5000), text]);
    const parts = [text, text.subarray(0, 5000), text];
    const members = Buffer.concat(parts.map((part) => gzipSync(part)));
    expect(await reads(scratch.write("a.gz", members), three)).toBe(true);
    const frames = parts.map((part) => zstdCompressSync(part));
    const file = Buffer.concat([
      skippable,
      frames[0],
      emptySkippable,
      frames[1],
      zstdCompressSync(""),
      frames[2],
      skippable,
    ]);
    expect(await reads(scratch.write("a.zst", file), three)).toBe(true);
  });

  it("counts the bytes on disk", async () => {
    using scratch = new Scratch();
    const compressed = gzipSync(text);
    let numBytes = 0;
    for await (const _ of readBytes(scratch.write("a.gz", compressed), (count) => (numBytes += count)));
    expect(numBytes).toBe(compressed.length);
  });

  it.each<[string, Uint8Array, RegExp]>([
    [
      "cut.gz",
      gzipSync(text).subarray(0, -9),
      /expected a whole gzip file at .*cut\.gz, got one that ends early/,
    ],
    ["cut.zst", zstdCompressSync(text).subarray(0, -9), /expected a whole Zstandard file at .*cut\.zst/],
    [
      "cut-later.zst",
      Buffer.concat([zstdCompressSync(text), zstdCompressSync(text).subarray(0, 3)]),
      /ends early/,
    ],
    ["empty.gz", Buffer.alloc(0), /expected a whole gzip file/],
    ["empty.zst", Buffer.alloc(0), /expected a whole Zstandard file/],
    ["text.gz", text, /expected gzip data in .*text\.gz, got: incorrect header check/],
    ["text.zst", text, /expected Zstandard data in .*text\.zst/],
    ["tail.zst", Buffer.concat([zstdCompressSync(text), Buffer.from("garbage")]), /expected Zstandard data/],
  ])("refuses %s", async (name, content, sentence) => {
    using scratch = new Scratch();
    await expect(read(scratch.write(name, content))).rejects.toThrow(sentence);
  });

  it("refuses missing files and folders", async () => {
    using scratch = new Scratch();
    await expect(read(scratch.path("none"))).rejects.toThrow(/at .*none, got nothing there/);
    await expect(read(scratch.folder)).rejects.toThrow("got a folder");
  });
});

describe("ZstdFrameScanner", () => {
  it("finds the same frames however the stream is cut", () => {
    const random = Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * 2654435761) >>> 13));
    const frames = [
      zstdCompressSync(text),
      skippable,
      zstdCompressSync(random),
      zstdCompressSync(""),
      emptySkippable,
    ];
    const file = Buffer.concat(frames);
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: file.length }), { maxLength: 30 }), (sizes) => {
        const scanner = new ZstdFrameScanner();
        const found: number[] = [];
        let length = 0;
        let begin = 0;
        for (const size of [...sizes, file.length]) {
          for (const piece of scanner.push(file.subarray(begin, begin + size))) {
            length += piece.bytes.length;
            if (!piece.endsFrame) continue;
            found.push(length);
            length = 0;
          }
          begin += size;
        }
        expect(found).toEqual(frames.map((frame) => frame.length));
      }),
    );
  });
});
