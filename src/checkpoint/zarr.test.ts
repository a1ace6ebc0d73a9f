import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { NautilusError } from "../base/index.ts";
import { folderTree } from "./fileTree.ts";
import { openZarr, zarrayText } from "./zarr.ts";

// Reading what the zarr library wrote is tested with the fixture nemo/zarr.nemo.
const work = mkdtempSync(join(tmpdir(), "nautilus-zarr-"));
afterAll(() => rmSync(work, { recursive: true }));

const description = {
  chunks: [2, 2],
  compressor: null,
  dtype: "|u1",
  fill_value: null,
  filters: null,
  order: "C",
  shape: [3, 4],
  zarr_format: 2,
};
const chunks = { "0.0": [0, 1, 4, 5], "0.1": [2, 3, 6, 7], "1.0": [8, 9, 99, 99], "1.1": [10, 11, 99, 99] };

function arrayFolder(
  changes: Record<string, unknown> = {},
  files: Record<string, number[]> = chunks,
): string {
  const folder = mkdtempSync(join(work, "array-"));
  mkdirSync(join(folder, "a.weight"));
  writeFileSync(join(folder, "a.weight", ".zarray"), JSON.stringify({ ...description, ...changes }));
  for (const [name, bytes] of Object.entries(files)) {
    const path = join(folder, "a.weight", name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, Uint8Array.from(bytes));
  }
  return folder;
}

describe("zarr", () => {
  it("joins chunks and drops what the edge chunks have beyond the array", () => {
    using source = openZarr(folderTree(arrayFolder()));
    expect([...source.names()]).toEqual(["a.weight"]);
    expect([...source.read("a.weight")]).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
  });

  it("reads chunks in folders", () => {
    const files = Object.fromEntries(
      Object.entries(chunks).map(([name, bytes]) => [name.replace(".", "/"), bytes]),
    );
    using source = openZarr(folderTree(arrayFolder({ dimension_separator: "/" }, files)));
    expect([...source.read("a.weight")].slice(0, 4)).toEqual([0, 1, 2, 3]);
  });

  it.each<[string, Record<string, unknown>]>([
    ["chunks compressed with blosc", { compressor: { id: "blosc", cname: "lz4" } }],
    ["filtered chunks", { filters: [{ id: "delta" }] }],
    ["column-major chunks", { order: "F" }],
    ["elements of >f4", { dtype: ">f4" }],
    ["chunks of another rank", { chunks: [4] }],
    ["a grid of (1000000000, 1) chunks", { shape: [1e9, 1], chunks: [1, 1] }],
    ["zarr_format", { zarr_format: 3 }],
    ["no 'a.weight/2.0'", { shape: [6, 4] }],
  ])("refuses %s", (message, changes) => {
    const tree = folderTree(arrayFolder(changes));
    expect(() => openZarr(tree)).toThrow(NautilusError);
    expect(() => openZarr(tree)).toThrow(message);
  });

  it("names a chunk that is cut short", () => {
    using source = openZarr(folderTree(arrayFolder({}, { ...chunks, "1.1": [10] })));
    expect(() => source.read("a.weight")).toThrow(/expected 4 bytes in .*1\.1, got 1/);
  });

  it("asks for no memory that the files do not back", () => {
    const shape = [2 ** 40];
    using source = openZarr(folderTree(arrayFolder({ shape, chunks: shape }, { "0": [1] })));
    expect(() => source.read("a.weight")).toThrow("got 1 (the chunk is cut short");
  });

  it("writes the description of Megatron-core, to the byte sizes of a published checkpoint", () => {
    // The sizes of four files of nvidia/Nemotron-4-340B-Base's model_weights.
    const sizes = [
      { shape: [256000, 18432], chunks: [32000, 18432] },
      { shape: [18432], chunks: [18432] },
      { shape: [96, 18432], chunks: [1, 18432] },
      { shape: [96, 73728, 18432], chunks: [1, 9216, 18432] },
    ].map((array) => zarrayText({ dtype: "bf16", ...array }).length);
    expect(sizes).toEqual([240, 209, 232, 261]);
  });
});
