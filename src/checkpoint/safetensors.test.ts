import {
  mkdtempSync,
  openSync,
  readFileSync,
  readdirSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
  closeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { CheckpointError, FileError, NautilusError } from "../base/index.ts";
import { openCheckpointFolder, writeCheckpointFolder } from "./folder.ts";
import { openSafetensors, writeSafetensors } from "./safetensors.ts";
import { tensorPieces } from "./source.ts";
import { checkpointFixture, described, expectedTensors } from "../../test/checkpoint/described.ts";
import { verifyChecksums, writeChecksums } from "./checksums.ts";

const fixtures = checkpointFixture("safetensors");
const work = mkdtempSync(join(tmpdir(), "nautilus-safetensors-"));
afterAll(() => rmSync(work, { recursive: true }));

/** What torch says of each tensor (test/fixtures/generate/checkpoint_safetensors.py). */
const expected = expectedTensors("safetensors/expected.json");

/** Writes a file of any header and data, right or wrong. */
function writeRaw(
  header: unknown,
  { dataBytes = 0, headerBytes }: { dataBytes?: number; headerBytes?: bigint } = {},
): string {
  const json = Buffer.from(typeof header === "string" ? header : JSON.stringify(header));
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(headerBytes ?? BigInt(json.byteLength));
  const path = join(work, "raw.safetensors");
  writeFileSync(path, Buffer.concat([prefix, json, Buffer.alloc(dataBytes)]));
  return path;
}

const f32 = (begin: number, end: number, shape = [(end - begin) / 4]): object => ({
  dtype: "F32",
  shape,
  data_offsets: [begin, end],
});

describe("reading safetensors", () => {
  it("reads every dtype as Python's library wrote it", () => {
    using source = openSafetensors(join(fixtures, "all.safetensors"));
    expect(described(source)).toEqual(expected);
    expect(source.metadata).toEqual({ format: "pt", note: "héllo" });
  });

  it("reads ranges and pieces", () => {
    using source = openSafetensors(join(fixtures, "all.safetensors"));
    const whole = Buffer.from(expected["float32"].hex, "hex");
    const part = new Uint8Array(7);
    source.readInto("float32", part, 9);
    expect(Buffer.from(part)).toEqual(whole.subarray(9, 16));
    const pieces = [...tensorPieces(source, "float32", { pieceBytes: 16 })].map((piece) => piece.length);
    expect(pieces).toEqual([16, 16, 16, 12]);
    let joined = "";
    for (const piece of tensorPieces(source, "float32", { pieceBytes: 16 }))
      joined += Buffer.from(piece).toString("hex");
    expect(joined).toBe(expected["float32"].hex);
  });

  it("reads sharded folders", () => {
    using source = openCheckpointFolder(join(fixtures, "sharded"));
    expect(described(source)).toEqual(expected);
  });

  it("reads beyond 4 GiB without holding it", () => {
    const path = join(work, "large.safetensors");
    const bigBytes = 5 * 2 ** 30;
    const json = Buffer.from(JSON.stringify({ big: f32(0, bigBytes), end: f32(bigBytes, bigBytes + 4) }));
    const prefix = Buffer.alloc(8);
    prefix.writeBigUInt64LE(BigInt(json.byteLength));
    const descriptor = openSync(path, "w");
    const dataStart = 8 + json.byteLength;
    writeSync(descriptor, Buffer.concat([prefix, json]));
    // Sparse: takes no room on the disk.
    writeSync(descriptor, Buffer.from("abcdefgh"), 0, 8, dataStart + bigBytes - 4);
    closeSync(descriptor);
    truncateSync(path, dataStart + bigBytes + 4);
    using source = openSafetensors(path);
    expect(source.info("big").byteLength).toBe(bigBytes);
    expect(Buffer.from(source.read("end")).toString()).toBe("efgh");
    const tail = new Uint8Array(6);
    source.readInto("big", tail, bigBytes - 6);
    expect([...tail]).toEqual([0, 0, 97, 98, 99, 100]);
    rmSync(path);
  });

  it("names a missing tensor and the nearest one", () => {
    using source = openSafetensors(join(fixtures, "all.safetensors"));
    expect(() => source.info("float322")).toThrow(
      /expected a tensor 'float322' in .*, got none \(there is 'float32'\)/,
    );
  });

  it.each<[string, string, () => string]>([
    ["a missing file", "got nothing there", () => join(work, "none.safetensors")],
    ["an empty file", "only 0 bytes", () => (writeFileSync(join(work, "empty"), ""), join(work, "empty"))],
    ["a header longer than the file", "a header of 99 bytes", () => writeRaw({}, { headerBytes: 99n })],
    [
      "a header beyond the limit",
      "a header of 18446744073709552000",
      () => writeRaw({}, { headerBytes: 2n ** 64n - 1n }),
    ],
    ["a header that is not JSON", "not JSON", () => writeRaw("{oops")],
    ["a header that is not an object", "not an object", () => writeRaw("[1]")],
    ["an entry without its fields", "without dtype", () => writeRaw({ a: { dtype: "F32" } })],
    [
      "an unknown dtype",
      "unknown dtype F4",
      () => writeRaw({ a: { dtype: "F4", shape: [], data_offsets: [0, 1] } }),
    ],
    [
      "a shape of another size",
      "of 8 bytes in a range of 4",
      () => writeRaw({ a: f32(0, 4, [2]) }, { dataBytes: 4 }),
    ],
    [
      "a shape beyond counting",
      "bytes in a range of 4",
      () => writeRaw({ a: f32(0, 4, [2 ** 40, 2 ** 40]) }, { dataBytes: 4 }),
    ],
    ["a negative offset", "without dtype", () => writeRaw({ a: f32(-4, 0) })],
    [
      "a gap",
      "a gap or an overlap before tensor 'b'",
      () => writeRaw({ a: f32(0, 4), b: f32(8, 12) }, { dataBytes: 12 }),
    ],
    ["an overlap", "a gap or an overlap", () => writeRaw({ a: f32(0, 8), b: f32(4, 12) }, { dataBytes: 12 })],
    [
      "two tensors of one name",
      "two tensors named 'a\"'",
      () =>
        writeRaw(`{"a\\"":${JSON.stringify(f32(0, 4))},"a\\u0022":${JSON.stringify(f32(0, 4))}}`, {
          dataBytes: 4,
        }),
    ],
    ["data cut short", "where the header says", () => writeRaw({ a: f32(0, 8) }, { dataBytes: 7 })],
    ["data too long", "where the header says", () => writeRaw({ a: f32(0, 8) }, { dataBytes: 9 })],
    ["metadata that is not text", "metadata that is not text", () => writeRaw({ __metadata__: { a: 1 } })],
  ])("refuses %s in one sentence", (_, message, make) => {
    const path = make();
    expect(() => openSafetensors(path)).toThrow(NautilusError);
    expect(() => openSafetensors(path)).toThrow(message);
  });

  it("survives any damage to the header", () => {
    const good = readFileSync(join(fixtures, "all.safetensors"));
    const path = join(work, "fuzzed.safetensors");
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(good.byteLength - 1), fc.nat(255)), { minLength: 1, maxLength: 4 }),
        fc.nat(good.byteLength),
        (changes, length) => {
          const bytes = Buffer.from(good);
          for (const [position, value] of changes) bytes[position] = value;
          writeFileSync(path, bytes.subarray(0, length % 3 === 0 ? length : undefined));
          try {
            using source = openSafetensors(path);
            for (const name of source.names()) source.read(name);
          } catch (error) {
            expect(error).toBeInstanceOf(CheckpointError);
          }
        },
      ),
      { numRuns: 300, seed: 1 },
    );
  });
});

describe("writing safetensors", () => {
  it("gives back what was read, aligned, whatever the order", () => {
    using source = openSafetensors(join(fixtures, "all.safetensors"));
    const headers = [...source.names()].reverse().map((name) => {
      const { dtype, shape } = source.info(name);
      return { name, dtype, shape };
    });
    const path = join(work, "again.safetensors");
    writeSafetensors(path, headers, {
      dataOf: (name) => tensorPieces(source, name, { pieceBytes: 8 }),
      metadata: source.metadata,
    });
    using again = openSafetensors(path);
    expect(described(again)).toEqual(expected);
    expect(again.metadata).toEqual(source.metadata);
    const bytes = readFileSync(path);
    const header = JSON.parse(bytes.toString("utf8", 8, 8 + Number(bytes.readBigUInt64LE()))) as Record<
      string,
      { data_offsets: number[] }
    >;
    expect((8 + Number(bytes.readBigUInt64LE())) % 64).toBe(0);
    expect(header["float64"].data_offsets[0] % 8).toBe(0);
    expect(header["float32"].data_offsets[0] % 4).toBe(0);
    expect(header["bfloat16"].data_offsets[0] % 2).toBe(0);
  });

  it("leaves nothing behind when the data fails", () => {
    const folder = mkdtempSync(join(work, "atomic-"));
    const path = join(folder, "model.safetensors");
    expect(() =>
      writeSafetensors(path, [{ name: "a", dtype: "f32", shape: [2] }], {
        *dataOf() {
          yield new Uint8Array(4);
          throw new FileError("test", "expected room, got a full disk");
        },
      }),
    ).toThrow("got a full disk");
    expect(() =>
      writeSafetensors(path, [{ name: "a", dtype: "f32", shape: [2] }], {
        dataOf: () => [new Uint8Array(4)],
      }),
    ).toThrow("all bytes of tensor a");
    expect(readdirSync(folder)).toEqual([]);
  });

  it("writes shards and their index, and removes what stood there before", () => {
    using source = openSafetensors(join(fixtures, "all.safetensors"));
    const headers = [...source.names()].map((name) => ({
      name,
      dtype: source.info(name).dtype,
      shape: source.info(name).shape,
    }));
    const folder = mkdtempSync(join(work, "folder-"));
    const options = { dataOf: (name: string) => tensorPieces(source, name) };
    expect(writeCheckpointFolder(folder, headers, options)).toEqual(["model.safetensors"]);
    const files = writeCheckpointFolder(folder, headers, { ...options, maxShardBytes: 200 });
    expect(readdirSync(folder).sort()).toEqual([...files].sort());
    expect(files.slice(0, 2)).toEqual([
      "model-00001-of-00004.safetensors",
      "model-00002-of-00004.safetensors",
    ]);
    const index = JSON.parse(readFileSync(join(folder, "model.safetensors.index.json"), "utf8")) as {
      metadata: { total_size: number };
    };
    expect(index.metadata.total_size).toBe(497);
    {
      using again = openCheckpointFolder(folder);
      expect(described(again)).toEqual(expected);
    }
    writeCheckpointFolder(folder, headers, options);
    expect(readdirSync(folder)).toEqual(["model.safetensors"]);
  });

  it("never cuts a tensor", () => {
    const folder = mkdtempSync(join(work, "one-each-"));
    const headers = ["a", "b", "c"].map((name) => ({ name, dtype: "f32", shape: [4] }) as const);
    const files = writeCheckpointFolder(folder, headers, {
      dataOf: () => [new Uint8Array(16)],
      maxShardBytes: 1,
    });
    expect(files).toHaveLength(4);
  });
});

describe("sharded folders", () => {
  const broken = (index: unknown): string => {
    const folder = mkdtempSync(join(work, "index-"));
    writeFileSync(join(folder, "model.safetensors.index.json"), JSON.stringify(index));
    return folder;
  };

  it("refuses an index that reaches out of its folder", () => {
    expect(() => openCheckpointFolder(broken({ weight_map: { a: "../a.safetensors" } }))).toThrow(
      NautilusError,
    );
  });

  it("names a tensor that lies in two shards, a shard that lacks one, and a shard that is cut short", () => {
    const folder = mkdtempSync(join(work, "shards-"));
    const headers = ["a", "b"].map((name) => ({ name, dtype: "f32", shape: [4] }) as const);
    const [first, second] = writeCheckpointFolder(folder, headers, {
      dataOf: () => [new Uint8Array(16)],
      maxShardBytes: 1,
    });
    const rewrite = (names: readonly string[]): void =>
      writeSafetensors(
        join(folder, second),
        names.map((name) => ({ name, dtype: "f32", shape: [4] })),
        {
          dataOf: () => [new Uint8Array(16)],
        },
      );
    rewrite(["a", "b"]);
    {
      using source = openCheckpointFolder(folder);
      expect(() => source.info("b")).toThrow(`got one in ${second} besides that in ${first}`);
    }
    rewrite(["c"]);
    {
      using source = openCheckpointFolder(folder);
      expect(() => source.info("b")).toThrow(
        /expected a tensor 'b' in .*model-00002-of-00002\.safetensors, got none/,
      );
    }
    truncateSync(join(folder, first), 40);
    using source = openCheckpointFolder(folder);
    expect(() => source.info("a")).toThrow(/expected a whole safetensors file at .*model-00001-of-00002/);
  });

  it("names a shard that is not there and a folder without weights", () => {
    using source = openCheckpointFolder(broken({ weight_map: { a: "model-00001-of-00001.safetensors" } }));
    expect(() => source.read("a")).toThrow(/model-00001-of-00001\.safetensors, got nothing there/);
    expect(() => openCheckpointFolder(mkdtempSync(join(work, "none-")))).toThrow("got neither");
  });
});

describe("checksums", () => {
  it("names the file that changed or is gone", () => {
    const folder = mkdtempSync(join(work, "sums-"));
    writeFileSync(join(folder, "a.bin"), "a");
    writeFileSync(join(folder, "b.bin"), "b");
    writeChecksums(folder);
    verifyChecksums(folder);
    writeFileSync(join(folder, "b.bin"), "c");
    expect(() => verifyChecksums(folder)).toThrow(
      /expected b\.bin in .* with sha256 3e23e8160039…, got 2e7d2c03a950…/,
    );
    rmSync(join(folder, "a.bin"));
    expect(() => verifyChecksums(folder)).toThrow(/expected a\.bin .* got no such file/);
  });
});
