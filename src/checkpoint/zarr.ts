/**
 * Zarr version 2 arrays as Megatron-core writes them (a folder per tensor with `.zarray` and raw chunk files; compressor and filters
 * null, C order, little-endian, dtype "bfloat16" for bf16): https://zarr-specs.readthedocs.io/en/latest/v2/v2.0.html. Compressed
 * arrays are refused by the compressor's name.
 */
import { z } from "zod";
import { CheckpointError, messageOf, numElements, parseConfig } from "../base/index.ts";
import { cutBox, joinBoxes } from "./box.ts";
import type { BoxPart } from "./box.ts";
import type { RangeReader } from "./bytes.ts";
import { readTreeText } from "./fileTree.ts";
import type { FileTree } from "./fileTree.ts";
import { storedByteLength, storedDtypeBytes, storedDtypes, tensorTable } from "./source.ts";
import type { StoredDtype, StoredTensor, TensorSource } from "./source.ts";

export const zarrayName = ".zarray";

/** numpy's names for little-endian elements; bf16 and the 8-bit floats have none, so Megatron and others use words. */
const dtypeNames: Readonly<Record<StoredDtype, readonly string[]>> = {
  f64: ["<f8"],
  f32: ["<f4"],
  bf16: ["bfloat16", "<V2", "|V2"],
  f16: ["<f2"],
  i64: ["<i8"],
  i32: ["<i4"],
  i16: ["<i2"],
  i8: ["|i1"],
  u64: ["<u8"],
  u32: ["<u4"],
  u16: ["<u2"],
  u8: ["|u1"],
  bool: ["|b1"],
  f8e4m3: ["float8_e4m3fn"],
  f8e5m2: ["float8_e5m2"],
};
const dtypesByName = new Map(
  storedDtypes.flatMap((dtype) => dtypeNames[dtype].map((name) => [name, dtype] as const)),
);

const count = z.int().nonnegative();
const zarraySchema = z.looseObject({
  zarr_format: z.literal(2),
  shape: z.array(count),
  chunks: z.array(z.int().positive()),
  dtype: z.string(),
  compressor: z.looseObject({ id: z.string() }).nullable(),
  filters: z.array(z.unknown()).nullish(),
  fill_value: z.unknown(),
  order: z.enum(["C", "F"]).default("C"),
  dimension_separator: z.enum([".", "/"]).default("."),
});

/** A grid of chunks finer than this per array is no checkpoint. */
const maxChunks = 1_000_000;

/** Every array of a tree, named by its folder. Throws CheckpointError, ConfigError. */
export function openZarr(tree: FileTree, { release }: { release?: () => void } = {}): TensorSource {
  const table = new Map<string, StoredTensor>();
  for (const file of tree.files) {
    if (!file.endsWith(`/${zarrayName}`)) continue;
    const name = file.slice(0, -zarrayName.length - 1);
    table.set(name, openArray(tree, name));
  }
  if (table.size === 0) {
    throw new CheckpointError("zarr", `expected zarr arrays in ${tree.path}, got none`, {
      hint: "is it a model_weights folder?",
    });
  }
  return tensorTable(tree.path, table, release === undefined ? {} : { release });
}

function openArray(tree: FileTree, name: string): StoredTensor {
  const path = `${tree.path}/${name}`;
  const array = parseConfig(`${path}/${zarrayName}`, zarraySchema, parseJson(tree, `${name}/${zarrayName}`));
  const { shape, chunks } = array;
  const dtype = dtypesByName.get(array.dtype);
  if (dtype === undefined) throw refused(path, `elements of ${array.dtype}`);
  if (array.compressor !== null) throw refused(path, `chunks compressed with ${array.compressor.id}`);
  if (array.filters != null && array.filters.length > 0) throw refused(path, "filtered chunks");
  if (array.order === "F" && shape.length > 1) throw refused(path, "column-major chunks");
  if (chunks.length !== shape.length) throw refused(path, "chunks of another rank than the array");
  const grid = shape.map((length, axis) => Math.ceil(length / chunks[axis]));
  if (!(numElements(grid) <= maxChunks)) throw refused(path, `a grid of (${grid.join(", ")}) chunks`);
  const itemBytes = storedDtypeBytes[dtype];
  const parts = gridIndices(grid).map((index): BoxPart => {
    const start = index.map((at, axis) => at * chunks[axis]);
    const inside = start.map((at, axis) => Math.min(chunks[axis], shape[axis] - at));
    const file = `${name}/${index.length === 0 ? "0" : index.join(array.dimension_separator)}`;
    if (!tree.has(file)) throw missingChunk(path, file);
    // Chunks at the far edges are stored whole too.
    const chunk = { shape: chunks, itemBytes, readRange: chunkReader(tree, { file, chunks, itemBytes }) };
    return {
      box: { start, shape: inside },
      readRange: cutBox(chunk, { start: chunks.map(() => 0), shape: inside }),
    };
  });
  const readRange = joinBoxes(shape, itemBytes, parts);
  return { dtype, shape, byteLength: storedByteLength(dtype, shape), readRange };
}

/** Every index of a grid, the last axis running fastest. */
export function gridIndices(grid: readonly number[]): number[][] {
  return grid.reduce<number[][]>(
    (indices, length) => indices.flatMap((index) => Array.from({ length }, (_, i) => [...index, i])),
    [[]],
  );
}

function chunkReader(
  tree: FileTree,
  { file, chunks, itemBytes }: { file: string; chunks: readonly number[]; itemBytes: number },
): RangeReader {
  const expectedBytes = numElements(chunks) * itemBytes;
  return (into, byteOffset) => {
    using bytes = tree.open(file);
    if (bytes.byteLength !== expectedBytes) {
      throw new CheckpointError(
        "zarr",
        `expected ${expectedBytes} bytes in ${bytes.path}, got ${bytes.byteLength}`,
        { hint: "the chunk is cut short or damaged; download or save it again" },
      );
    }
    bytes.readInto(into, byteOffset);
  };
}

function missingChunk(path: string, file: string): CheckpointError {
  return new CheckpointError("zarr", `expected every chunk of ${path}, got no '${file}'`, {
    hint: "the checkpoint is incomplete; download or save it again",
    fields: { path, file },
  });
}

function parseJson(tree: FileTree, file: string): unknown {
  const text = readTreeText(tree, file);
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new CheckpointError("zarr", `expected JSON in ${tree.path}/${file}, got ${messageOf(error)}`);
  }
}

function refused(path: string, got: string): CheckpointError {
  return new CheckpointError("zarr", `expected plain row-major chunks in ${path}, got ${got}`, {
    fields: { path },
  });
}

/** The `.zarray` of an uncompressed array, as Megatron-core's zarr strategy has it. */
export function zarrayText({
  dtype,
  shape,
  chunks,
}: {
  dtype: StoredDtype;
  shape: readonly number[];
  chunks: readonly number[];
}): string {
  const fields = {
    chunks,
    compressor: null,
    dtype: dtypeNames[dtype][0],
    fill_value: null,
    filters: null,
    order: "C",
    shape,
    zarr_format: 2,
  };
  return JSON.stringify(fields, undefined, 4);
}
