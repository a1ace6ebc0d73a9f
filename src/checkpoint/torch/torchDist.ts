/**
 * Distributed checkpoints of torch.distributed.checkpoint, which Megatron-core calls "torch_dist": `.metadata`, a pickle that says which
 * box of which tensor lies where, and `__<rank>_<n>.distcp` files of `torch.save` items (torch/distributed/checkpoint/metadata.py and
 * filesystem.py). Boxes of all ranks are joined; objects that are not tensors (`_extra_state`) are left alone.
 */
import { CheckpointError, formatShape, numElements } from "../../base/index.ts";
import { joinBoxes } from "../box.ts";
import type { Box, BoxPart } from "../box.ts";
import { partOf } from "../bytes.ts";
import type { ByteSource, RangeReader } from "../bytes.ts";
import type { FileTree } from "../fileTree.ts";
import { storedByteLength, storedDtypeBytes, tensorTable } from "../source.ts";
import type { StoredDtype, StoredTensor, TensorSource } from "../source.ts";
import { readPickle } from "./pickle.ts";
import { asRecord, PickleRecord } from "./pickleValues.ts";
import { ByteCursor } from "../cursor.ts";
import { readTorchFile } from "./torchFile.ts";
import type { TorchFile } from "./torchFile.ts";
import { countOf, countsOf, torchDtype, torchRules } from "./values.ts";

export const torchDistMetadataName = ".metadata";

const metadataClasses =
  /^torch\.distributed\.(checkpoint|_shard)\.(\w+\.)+(Metadata|TensorStorageMetadata|BytesStorageMetadata|ChunkStorageMetadata|ShardMetadata|TensorProperties|_?MEM_FORMAT_ENCODING|MetadataIndex|StorageMeta|_StorageInfo)$/;
/** Empty classes that some versions of Megatron-core leave in the pickle. */
const megatronClasses = /^megatron\.core\.dist_checkpointing\.strategies\.torch\.MCore(Metadata|SavePlan)$/;

/** Where one box's item lies. */
interface Location {
  readonly file: string;
  readonly offset: number;
  readonly byteLength: number;
}

/** Opens the checkpoint in a tree. Throws CheckpointError, FileError. */
export function openTorchDist(
  tree: FileTree,
  { release = () => {} }: { release?: () => void } = {},
): TensorSource {
  const files = new Map<string, ByteSource>();
  const openFile = (file: string): ByteSource => {
    const opened = files.get(file) ?? tree.open(file);
    files.set(file, opened);
    return opened;
  };
  const table = readTable(tree, openFile);
  return tensorTable(tree.path, table, {
    release() {
      for (const file of files.values()) file[Symbol.dispose]();
      release();
    },
  });
}

function malformed(path: string, got: string): CheckpointError {
  return new CheckpointError(
    "torch_dist",
    `expected the metadata of a distributed checkpoint in ${path}, got ${got}`,
    {
      fields: { path },
    },
  );
}

function readTable(tree: FileTree, openFile: (file: string) => ByteSource): Map<string, StoredTensor> {
  using bytes = tree.open(torchDistMetadataName);
  const { path } = bytes;
  const more = (name: string): typeof asRecord | undefined =>
    metadataClasses.test(name) || megatronClasses.test(name) ? asRecord : undefined;
  const metadata = readPickle(new ByteCursor(bytes, "pickle"), torchRules(path, { more }));
  const described = mapField(path, metadata, "state_dict_metadata");
  const locations = readLocations(path, mapField(path, metadata, "storage_data"));
  const table = new Map<string, StoredTensor>();
  for (const [name, entry] of described) {
    if (typeof name !== "string" || !(entry instanceof PickleRecord))
      throw malformed(path, "an unnamed entry");
    if (entry.className.endsWith(".BytesStorageMetadata")) continue;
    table.set(name, readTensor(path, entry, { name, locations, openFile }));
  }
  return table;
}

function mapField(path: string, record: unknown, field: string): ReadonlyMap<unknown, unknown> {
  const value = record instanceof PickleRecord ? record.fields.get(field) : undefined;
  if (!(value instanceof Map)) throw malformed(path, `no ${field}`);
  return value;
}

function locationKey(name: string, start: readonly number[]): string {
  return `${name}@${start.join()}`;
}

function readLocations(path: string, storage: ReadonlyMap<unknown, unknown>): Map<string, Location> {
  const locations = new Map<string, Location>();
  for (const [index, info] of storage) {
    if (!(index instanceof PickleRecord) || !(info instanceof PickleRecord))
      throw malformed(path, "a broken index");
    const name = index.fields.get("fqn");
    const offset = index.fields.get("offset") ?? null;
    const file = info.fields.get("relative_path");
    if (typeof name !== "string" || typeof file !== "string")
      throw malformed(path, "an item without a place");
    if (offset === null) continue;
    const transforms = info.fields.get("transform_descriptors") ?? [];
    if (!Array.isArray(transforms) || transforms.length > 0) {
      throw malformed(path, `'${name}' packed with ${JSON.stringify(transforms)}`);
    }
    locations.set(locationKey(name, countsOf(path, offset)), {
      file,
      offset: countOf(path, info.fields.get("offset")),
      byteLength: countOf(path, info.fields.get("length")),
    });
  }
  return locations;
}

interface TensorContext {
  name: string;
  locations: ReadonlyMap<string, Location>;
  openFile: (file: string) => ByteSource;
}

function readTensor(
  path: string,
  entry: PickleRecord,
  { name, locations, openFile }: TensorContext,
): StoredTensor {
  const dtype = readDtype(path, entry.fields.get("properties"));
  const shape = countsOf(path, entry.fields.get("size"));
  const chunks = entry.fields.get("chunks");
  if (!Array.isArray(chunks)) throw malformed(path, `no chunks of '${name}'`);
  const boxes = new Map<string, Box>();
  for (const chunk of chunks as readonly unknown[]) {
    const box = readBox(path, chunk, { name, shape });
    // Replicas are listed once per rank and stored once.
    boxes.set(locationKey(name, box.start), box);
  }
  const covered = [...boxes.values()].reduce((sum, box) => sum + numElements(box.shape), 0);
  if (covered !== numElements(shape)) {
    throw malformed(path, `chunks of '${name}' with ${covered} of ${numElements(shape)} elements`);
  }
  const parts = [...boxes].map(([key, box]): BoxPart => {
    const location = locations.get(key);
    if (location === undefined) throw malformed(path, `no place of '${name}' at ${formatShape(box.start)}`);
    return { box, readRange: itemReader(location, { name, dtype, box, openFile }) };
  });
  const readRange = joinBoxes(shape, storedDtypeBytes[dtype], parts);
  return { dtype, shape, byteLength: storedByteLength(dtype, shape), readRange };
}

/** Properties are pickled as attributes or, in most versions, as a tuple that starts with the dtype. */
function readDtype(path: string, properties: unknown): StoredDtype {
  const fields = properties instanceof PickleRecord ? properties.fields : new Map<unknown, unknown>();
  const state = fields.get("__state__");
  return torchDtype(path, Array.isArray(state) ? (state as readonly unknown[])[0] : fields.get("dtype"));
}

function readBox(
  path: string,
  chunk: unknown,
  { name, shape }: { name: string; shape: readonly number[] },
): Box {
  if (!(chunk instanceof PickleRecord)) throw malformed(path, `a broken chunk of '${name}'`);
  const start = countsOf(path, chunk.fields.get("offsets"));
  const length = countsOf(path, chunk.fields.get("sizes"));
  const isInside =
    start.length === shape.length &&
    length.length === shape.length &&
    shape.every((limit, axis) => start[axis] + length[axis] <= limit);
  if (!isInside) {
    throw malformed(
      path,
      `a chunk ${formatShape(length)} at ${formatShape(start)} of '${name}' ${formatShape(shape)}`,
    );
  }
  return { start, shape: length };
}

function itemReader(
  { file, offset, byteLength }: Location,
  {
    name,
    dtype,
    box,
    openFile,
  }: { name: string; dtype: StoredDtype; box: Box; openFile: (file: string) => ByteSource },
): RangeReader {
  let item: TorchFile | undefined;
  return (into, byteOffset) => {
    if (item === undefined) {
      const whole = openFile(file);
      const opened = readTorchFile(
        partOf(whole, { path: `${whole.path}:${name}`, start: offset, byteLength }),
      );
      const info = opened.tensors.info("");
      // Megatron puts axes of length one before a layer's own shape, or leaves them away: the count decides.
      if (info.dtype !== dtype || numElements(info.shape) !== numElements(box.shape)) {
        throw new CheckpointError(
          "torch_dist",
          `expected ${dtype} ${formatShape(box.shape)} for a part of ${name} in ${whole.path}, got ${info.dtype} ${formatShape(info.shape)}`,
        );
      }
      item = opened;
    }
    item.tensors.readInto("", into, byteOffset);
  };
}
