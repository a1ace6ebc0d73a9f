/**
 * Megatron checkpoints of any age under one spelling (names.ts), one tensor per layer: stacked layers are taken apart, the ranks of
 * tensor and pipeline parallelism put together. Nothing is copied; every tensor is read through to its source when asked for.
 */
import { CheckpointError, formatShape, sameShape } from "../../base/index.ts";
import { cutBox, joinBoxes } from "../box.ts";
import type { BoxPart } from "../box.ts";
import type { RangeReader } from "../bytes.ts";
import { storedByteLength, storedDtypeBytes, tensorTable } from "../source.ts";
import type { StoredTensor, TensorSource } from "../source.ts";
import { layerName, layerTensors, parseMegatronName, splitAxis } from "./names.ts";
import type { MegatronName } from "./names.ts";

const component = "megatron";

/** A tensor and its place; layers are numbered within the source. */
interface Placed {
  readonly place: MegatronName & { readonly layer: number | undefined };
  readonly tensor: StoredTensor;
}

/** One checkpoint that is whole: a .ckpt of a single rank, zarr or torch_dist. Throws CheckpointError. */
export function canonicalMegatron(source: TensorSource): TensorSource {
  return mergeMegatronRanks(source.path, [[source]]);
}

/**
 * The checkpoints of all ranks: `stages` in the order of their layers, each with its tensor-parallel ranks. Each stage numbers its layers
 * from 0. Disposing the result disposes them. Throws CheckpointError.
 */
export function mergeMegatronRanks(path: string, stages: readonly (readonly TensorSource[])[]): TensorSource {
  const table = new Map<string, StoredTensor>();
  let numLayersBefore = 0;
  for (const ranks of stages) {
    const merged = mergeStage(path, ranks.map(placeTensors));
    let numLayers = 0;
    for (const { place, tensor } of merged.values()) {
      if (place.layer !== undefined) numLayers = Math.max(numLayers, place.layer + 1);
      const name =
        place.layer === undefined ? place.name : layerName(place.layer + numLayersBefore, place.name);
      // Stages at both ends hold the embedding when it is tied to the output: the first stage's is the one.
      if (!table.has(name)) table.set(name, tensor);
    }
    numLayersBefore += numLayers;
  }
  const release = (): void => {
    for (const source of stages.flat()) source.dispose();
  };
  return tensorTable(path, table, { release });
}

/** Every tensor of one source by its name in the stage. */
function placeTensors(source: TensorSource): Map<string, Placed> {
  const placed = new Map<string, Placed>();
  const add = (stored: string, place: Placed["place"], tensor: StoredTensor): void => {
    const name = place.layer === undefined ? place.name : layerName(place.layer, place.name);
    if (placed.has(name)) {
      throw new CheckpointError(component, `expected one '${name}' in ${source.path}, got '${stored}' too`);
    }
    placed.set(name, { place, tensor });
  };
  for (const stored of source.names()) {
    const place = parseMegatronName(stored);
    if (place === "ignored") continue;
    if (place === undefined) {
      throw new CheckpointError(
        component,
        `expected the tensors of a GPT decoder in ${source.path}, got '${stored}'`,
        {
          hint: "models with other parts (experts, adapters, encoders) are not read",
          fields: { path: source.path, name: stored },
        },
      );
    }
    const { name, layer } = place;
    const tensor = throughTo(source, stored);
    if (layer !== "stacked") add(stored, { name, layer }, tensor);
    else for (const [i, one] of unstack(tensor).entries()) add(stored, { name, layer: i }, one);
  }
  return placed;
}

/** A tensor read through its source. */
export function throughTo(source: TensorSource, name: string): StoredTensor {
  const { dtype, shape, byteLength } = source.info(name);
  return {
    dtype,
    shape,
    byteLength,
    readRange: (into, byteOffset) => source.readInto(name, into, byteOffset),
  };
}

/** The layers of a stacked tensor. */
function unstack({ dtype, shape: [numLayers = 0, ...shape], readRange }: StoredTensor): StoredTensor[] {
  const byteLength = storedByteLength(dtype, shape);
  return Array.from({ length: numLayers }, (_, layer): StoredTensor => {
    const readLayer: RangeReader = (into, byteOffset) => readRange(into, layer * byteLength + byteOffset);
    return { dtype, shape, byteLength, readRange: readLayer };
  });
}

function mergeStage(path: string, ranks: readonly ReadonlyMap<string, Placed>[]): Map<string, Placed> {
  const [first] = ranks;
  const merged = new Map<string, Placed>();
  for (const [name, { place }] of first) {
    const shards = ranks.map((rank, i) => {
      const shard = rank.get(name)?.tensor;
      if (shard === undefined) {
        throw new CheckpointError(
          component,
          `expected '${name}' of every rank in ${path}, got none of rank ${i}`,
        );
      }
      return shard;
    });
    const numBands = place.name.startsWith(layerTensors.up) && isGated(first, place.layer) ? 2 : 1;
    merged.set(name, { place, tensor: joinShards(path, shards, { name, axis: splitAxis(place), numBands }) });
  }
  return merged;
}

/** Gated linear units keep gate and up rows in one matrix, twice as high as the down matrix is wide. */
function isGated(rank: ReadonlyMap<string, Placed>, layer: number | undefined): boolean {
  if (layer === undefined) return false;
  const up = rank.get(layerName(layer, `${layerTensors.up}weight`))?.tensor.shape[0];
  const down = rank.get(layerName(layer, `${layerTensors.down}weight`))?.tensor.shape[1];
  return up !== undefined && down !== undefined && up === 2 * down;
}

/** Puts shards together along an axis. With two bands each shard is a gate part over an up part, and so is the whole. */
function joinShards(
  path: string,
  shards: readonly StoredTensor[],
  { name, axis, numBands }: { name: string; axis: 0 | 1 | undefined; numBands: number },
): StoredTensor {
  const [first] = shards;
  if (shards.length === 1 || axis === undefined) return first;
  for (const [rank, { dtype, shape }] of shards.entries()) {
    if (dtype === first.dtype && sameShape(shape, first.shape)) continue;
    throw new CheckpointError(
      component,
      `expected ${first.dtype} ${formatShape(first.shape)} of '${name}' in ${path}, got ${dtype} ${formatShape(shape)} of rank ${rank}`,
      { hint: "the ranks are of different checkpoints" },
    );
  }
  const { dtype, shape: shardShape } = first;
  const itemBytes = storedDtypeBytes[dtype];
  const scaled = (shape: readonly number[], factor: number): number[] =>
    shape.map((length, i) => (i === axis ? length * factor : length));
  const shape = scaled(shardShape, shards.length);
  const bandShape = scaled(shardShape, 1 / numBands);
  const startAt = (index: number): number[] =>
    shardShape.map((_, i) => (i === axis ? index * bandShape[axis] : 0));
  const parts = shards.flatMap(({ readRange }, rank) =>
    Array.from({ length: numBands }, (_, band): BoxPart => {
      const whole = { shape: shardShape, itemBytes, readRange };
      return {
        box: { start: startAt(band * shards.length + rank), shape: bandShape },
        readRange: cutBox(whole, { start: startAt(band), shape: bandShape }),
      };
    }),
  );
  return {
    dtype,
    shape,
    byteLength: storedByteLength(dtype, shape),
    readRange: joinBoxes(shape, itemBytes, parts),
  };
}
