/**
 * Files that are well-formed on the surface and lie in their fields: any number where a length, an offset or a shape is expected. Whatever
 * they say, it is a CheckpointError or a table of tensors within the file, and no memory is asked for beyond the file's own size class.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { checkpointFixture } from "../../test/checkpoint/described.ts";
import { NautilusError } from "../base/index.ts";
import { openFileBytes } from "./bytes.ts";
import { openSafetensors } from "./safetensors.ts";
import { readTar } from "./tar.ts";
import { openZip } from "./zip.ts";

const work = mkdtempSync(join(tmpdir(), "nautilus-hostile-"));
afterAll(() => rmSync(work, { recursive: true }));
const path = join(work, "file");

/** What a field of a few hundred kilobytes may cost: buffers of readers included. */
const largestGrowth = 8 << 20;

/** Runs `body`, which may refuse the file, and holds what was allocated against the limit. */
function expectHarmless(bytes: Uint8Array, body: () => void): void {
  writeFileSync(path, bytes);
  const before = process.memoryUsage().arrayBuffers;
  try {
    body();
  } catch (error) {
    expect(error).toBeInstanceOf(NautilusError);
  }
  // Nothing was collected in between, or less than was allocated: an allocation of gigabytes shows either way.
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(largestGrowth);
}

const wildNumber = fc.oneof(
  fc.nat(4096),
  fc.constantFrom(-1, 0.5, 2 ** 31, 2 ** 32 - 1, 2 ** 52, 2 ** 53, 1e300, Number.MAX_SAFE_INTEGER),
);
const wild = fc.oneof(wildNumber, fc.constantFrom<unknown>(null, "7", [], {}, true));

describe("safetensors", () => {
  const entry = fc.record({
    dtype: fc.oneof(fc.constantFrom("F32", "BF16", "F8_E4M3", "I64"), fc.constantFrom<unknown>("X", 7, null)),
    shape: fc.oneof(fc.array(wildNumber, { maxLength: 4 }), wild),
    data_offsets: fc.oneof(fc.tuple(wildNumber, wildNumber), fc.array(wildNumber, { maxLength: 3 }), wild),
  });
  const name = fc.constantFrom("a", "b", "__proto__", "__metadata__", "constructor", "");

  it("headers that lie", () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(name, entry), { maxLength: 4 }), fc.nat(512), (entries, numData) => {
        const text = `{${entries.map(([key, value]) => `${JSON.stringify(key)}:${JSON.stringify(value)}`).join(",")}}`;
        const prefix = Buffer.alloc(8);
        prefix.writeBigUInt64LE(BigInt(Buffer.byteLength(text)));
        const bytes = Buffer.concat([prefix, Buffer.from(text), Buffer.alloc(numData)]);
        expectHarmless(bytes, () => {
          using source = openSafetensors(path);
          for (const tensor of source.names()) {
            const { byteLength } = source.info(tensor);
            expect(byteLength).toBeLessThanOrEqual(bytes.byteLength);
            expect(source.read(tensor).byteLength).toBe(byteLength);
          }
        });
      }),
      { numRuns: 400, seed: 11 },
    );
  });

  it("a length that lies", () => {
    for (const length of [0n, 1n, 100_000_001n, 2n ** 32n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n]) {
      const bytes = Buffer.alloc(64, "{}");
      bytes.writeBigUInt64LE(length);
      writeFileSync(path, bytes);
      expect(() => openSafetensors(path), String(length)).toThrow(NautilusError);
    }
  });
});

describe("zip", () => {
  const good = readFileSync(checkpointFixture("torch/zip-2.pt"));
  const wild32 = fc.oneof(fc.nat(0xffffffff), fc.constantFrom(0, 1, 0x7fffffff, 0xfffffffe, 0xffffffff));
  const directories = [...good.keys()].filter((at) =>
    good.subarray(at, at + 4).equals(Buffer.from("PK\u0001\u0002")),
  );
  const end = good.lastIndexOf("PK\u0005\u0006", undefined, "latin1");

  it("directories that lie", () => {
    expect(directories.length).toBeGreaterThan(10);
    // Of an entry: method and flags, sizes, lengths of its parts, where it lies; of the end: how many, how long, where.
    const place = fc.oneof(
      fc.tuple(fc.constantFrom(...directories), fc.constantFrom(8, 20, 24, 28, 32, 42)),
      fc.tuple(fc.constant(end), fc.constantFrom(8, 12, 16)),
    );
    fc.assert(
      fc.property(fc.array(fc.tuple(place, wild32), { minLength: 1, maxLength: 3 }), (changes) => {
        const bytes = Buffer.from(good);
        for (const [[start, field], value] of changes) bytes.writeUInt32LE(value, start + field);
        expectHarmless(bytes, () => {
          using file = openFileBytes(path);
          const archive = openZip(file);
          for (const name of archive.names()) {
            const { byteLength } = archive.open(name);
            expect(byteLength).toBeLessThanOrEqual(bytes.byteLength);
          }
        });
      }),
      { numRuns: 250, seed: 12 },
    );
  });
});

describe("tar", () => {
  const good = readFileSync(checkpointFixture("tar/pax.tar"));
  const headers = Array.from({ length: good.byteLength / 512 }, (_, block) => block * 512).filter(
    (at) => good.subarray(at + 257, at + 262).toString("latin1") === "ustar",
  );
  const names = fc.constantFrom(
    "../up",
    "/root",
    "a/../../b",
    "a\\..\\b",
    "C:\\x",
    ".",
    "..",
    "",
    "a\u0000b",
    "ok",
  );
  const sizes = fc.oneof(
    fc.nat(0o77777777777).map((size) => Buffer.from(size.toString(8).padStart(11, "0"))),
    fc.constantFrom(
      Buffer.from([0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
      Buffer.alloc(12, 0xff),
      Buffer.from("-0000000001 "),
      Buffer.from("99999999999 "),
    ),
  );
  const kind = fc.constantFrom("0", "1", "2", "5", "L", "K", "x", "g", "S", "\u0000");

  /** The sum over the header with its own field as spaces, so that the lie is read and not the broken sum. */
  function sign(bytes: Buffer, at: number): void {
    bytes.fill(" ", at + 148, at + 156);
    let sum = 0;
    for (let i = at; i < at + 512; i++) sum += bytes[i];
    bytes.write(`${sum.toString(8).padStart(6, "0")}\u0000 `, at + 148, "latin1");
  }

  it("headers that lie, with sums that are right", () => {
    const change = fc.record({
      at: fc.constantFrom(...headers),
      name: fc.option(names),
      size: fc.option(sizes),
      kind: fc.option(kind),
    });
    fc.assert(
      fc.property(fc.array(change, { minLength: 1, maxLength: 3 }), (changes) => {
        const bytes = Buffer.from(good);
        for (const { at, name, size, kind: type } of changes) {
          if (name !== null) bytes.fill(0, at, at + 100).write(name, at, "latin1");
          if (size !== null) bytes.set(size, at + 124);
          if (type !== null) bytes.write(type, at + 156, "latin1");
          sign(bytes, at);
        }
        expectHarmless(bytes, () => {
          using file = openFileBytes(path);
          const tree = readTar(file);
          for (const member of tree.files) {
            expect(member.startsWith("/") || member.split(/[/\\]/).includes(".."), member).toBe(false);
            expect(tree.open(member).byteLength).toBeLessThanOrEqual(bytes.byteLength);
          }
        });
      }),
      { numRuns: 250, seed: 13 },
    );
  });
});
