/**
 * The names a `torch.save` pickle may use and what they become here: tensors and storages as descriptions of where their bytes lie,
 * containers as plain ones, a few inert classes (numpy random states, argparse namespaces, Megatron's enums) as records of their
 * attributes. Nothing of it runs. Forms: torch/_utils.py, torch/_tensor.py, torch/serialization.py.
 */
import { CheckpointError } from "../../base/index.ts";
import type { StoredDtype } from "../source.ts";
import { asRecord, PickleGlobal } from "./pickleValues.ts";
import type { GlobalBuilder, PickleRules } from "./pickleValues.ts";

/** A storage that the file holds under `key`; untyped ones (dtype undefined) count bytes. */
export class TorchStorage {
  readonly key: string;
  readonly dtype: StoredDtype | undefined;
  readonly numElements: number;

  constructor(key: string, dtype: StoredDtype | undefined, numElements: number) {
    this.key = key;
    this.dtype = dtype;
    this.numElements = numElements;
  }
}

/** A strided window on a storage; offset and strides in elements. */
export class TorchTensor {
  readonly storage: TorchStorage;
  readonly dtype: StoredDtype;
  readonly offset: number;
  readonly shape: readonly number[];
  readonly strides: readonly number[];

  constructor(
    storage: TorchStorage,
    window: { dtype: StoredDtype; offset: number; shape: readonly number[]; strides: readonly number[] },
  ) {
    this.storage = storage;
    this.dtype = window.dtype;
    this.offset = window.offset;
    this.shape = window.shape;
    this.strides = window.strides;
  }
}

const storageDtypes: ReadonlyMap<string, StoredDtype | undefined> = new Map<string, StoredDtype | undefined>([
  ["torch.DoubleStorage", "f64"],
  ["torch.FloatStorage", "f32"],
  ["torch.BFloat16Storage", "bf16"],
  ["torch.HalfStorage", "f16"],
  ["torch.LongStorage", "i64"],
  ["torch.IntStorage", "i32"],
  ["torch.ShortStorage", "i16"],
  ["torch.CharStorage", "i8"],
  ["torch.ByteStorage", "u8"],
  ["torch.BoolStorage", "bool"],
  ["torch.storage.UntypedStorage", undefined],
]);

const tensorDtypes: ReadonlyMap<string, StoredDtype> = new Map([
  ["torch.float64", "f64"],
  ["torch.float32", "f32"],
  ["torch.bfloat16", "bf16"],
  ["torch.float16", "f16"],
  ["torch.int64", "i64"],
  ["torch.int32", "i32"],
  ["torch.int16", "i16"],
  ["torch.int8", "i8"],
  ["torch.uint64", "u64"],
  ["torch.uint32", "u32"],
  ["torch.uint16", "u16"],
  ["torch.uint8", "u8"],
  ["torch.bool", "bool"],
  ["torch.float8_e4m3fn", "f8e4m3"],
  ["torch.float8_e5m2", "f8e5m2"],
]);

/** The dtype a value such as torch.bfloat16 names. Throws CheckpointError. */
export function torchDtype(path: string, value: unknown): StoredDtype {
  const name = value instanceof PickleGlobal ? value.name : typeof value;
  const dtype = tensorDtypes.get(name);
  if (dtype === undefined) throw malformed(path, `a tensor of dtype ${name}`);
  return dtype;
}

function malformed(path: string, got: string): CheckpointError {
  return new CheckpointError("torch", `expected tensors as torch.save writes them in ${path}, got ${got}`, {
    fields: { path },
  });
}

/** A pickled integer that counts something. */
export function countOf(path: string, value: unknown): number {
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return value;
  throw malformed(path, `${String(value)} where a count should be`);
}

/** A pickled tuple of counts: a shape, strides, offsets. */
export function countsOf(path: string, value: unknown): number[] {
  if (!Array.isArray(value)) throw malformed(path, "no tuple where a shape should be");
  return value.map((item) => countOf(path, item));
}

function tensorOf(path: string, args: readonly unknown[], dtypeValue?: unknown): TorchTensor {
  const [storage, offsetValue, shapeValue, stridesValue] = args;
  if (!(storage instanceof TorchStorage)) throw malformed(path, "a tensor without a storage");
  const shape = countsOf(path, shapeValue);
  const strides = countsOf(path, stridesValue);
  if (shape.length !== strides.length) throw malformed(path, "a shape and strides of different lengths");
  const dtype = dtypeValue === undefined ? storage.dtype : torchDtype(path, dtypeValue);
  if (dtype === undefined) throw malformed(path, "a tensor of unknown dtype");
  return new TorchTensor(storage, { dtype, offset: countOf(path, offsetValue), shape, strides });
}

function latin1Bytes(path: string, [text, encoding]: readonly unknown[]): Uint8Array {
  // Python 3 writes bytes so in protocol 2.
  if (typeof text !== "string" || encoding !== "latin1")
    throw malformed(path, "bytes in an unknown encoding");
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}

const first: GlobalBuilder = ([value]) => value;

function builders(path: string): ReadonlyMap<string, GlobalBuilder> {
  const setOf: GlobalBuilder = ([items]) => new Set(Array.isArray(items) ? items : []);
  const rebuildSubclass: GlobalBuilder = ([rebuild, , args]) => {
    // A tensor with Python attributes: the plain tensor is all we keep.
    if (!(rebuild instanceof PickleGlobal) || rebuild.build === undefined || !Array.isArray(args)) {
      throw malformed(path, "a tensor subclass of an unknown form");
    }
    return rebuild.build(args, rebuild.name);
  };
  return new Map<string, GlobalBuilder>([
    ["torch._utils._rebuild_tensor", (args) => tensorOf(path, args)],
    ["torch._utils._rebuild_tensor_v2", (args) => tensorOf(path, args)],
    ["torch._utils._rebuild_tensor_v3", (args) => tensorOf(path, args, args[6])],
    ["torch._utils._rebuild_parameter", first],
    ["torch._utils._rebuild_parameter_with_state", first],
    ["torch._tensor._rebuild_from_type_v2", rebuildSubclass],
    ["torch.Size", ([sizes]) => countsOf(path, sizes)],
    ["collections.OrderedDict", ([pairs]) => mapOf(path, pairs)],
    ["builtins.set", setOf],
    ["__builtin__.set", setOf],
    ["builtins.frozenset", setOf],
    ["_codecs.encode", (args) => latin1Bytes(path, args)],
  ]);
}

function mapOf(path: string, pairs: unknown): Map<unknown, unknown> {
  const map = new Map<unknown, unknown>();
  if (pairs === undefined) return map;
  if (!Array.isArray(pairs)) throw malformed(path, "an OrderedDict of something else than pairs");
  for (const pair of pairs) {
    if (!Array.isArray(pair) || pair.length !== 2) throw malformed(path, "an OrderedDict without pairs");
    map.set(pair[0], pair[1]);
  }
  return map;
}

/** Classes whose objects ride along in training checkpoints; kept as names and attributes. */
const inertClasses = new Set([
  "argparse.Namespace",
  "types.SimpleNamespace",
  "torch.device",
  "torch.serialization._get_layout",
  "torch.torch_version.TorchVersion",
  "numpy.ndarray",
  "numpy.dtype",
  "numpy.core.multiarray._reconstruct",
  "numpy._core.multiarray._reconstruct",
  "numpy.core.multiarray.scalar",
  "numpy._core.multiarray.scalar",
  "_io.BytesIO",
  "pathlib.Path",
  "pathlib.PosixPath",
  "signal.Signals",
  "datetime.timedelta",
]);
const inertPattern = /^(megatron|nemo)\.[\w.]*\benums\.\w+$/;

/** Names that stand for themselves. */
const plainNames = new Set(["torch.Tensor", "torch.nn.parameter.Parameter", "torch.strided"]);

/** The rules for a pickle of `torch.save`; `more` are further names of a format built on it. */
export function torchRules(
  path: string,
  { more = () => undefined }: { more?: PickleRules["global"] } = {},
): PickleRules {
  const known = builders(path);
  return {
    global(name) {
      const builder = known.get(name);
      if (builder !== undefined) return builder;
      if (storageDtypes.has(name) || tensorDtypes.has(name) || plainNames.has(name)) return "name";
      if (inertClasses.has(name) || inertPattern.test(name)) return asRecord;
      return more(name);
    },
    persistent: (id) => storageOf(path, id),
  };
}

function storageOf(path: string, id: unknown): TorchStorage {
  if (!Array.isArray(id)) throw malformed(path, "a persistent id that names no storage");
  const [kind, type, key, , size, view] = id as readonly unknown[];
  const isStorageType = type instanceof PickleGlobal && storageDtypes.has(type.name);
  if (kind !== "storage" || !isStorageType || typeof key !== "string") {
    throw malformed(path, "a persistent id that names no storage");
  }
  if (view !== undefined && view !== null) throw malformed(path, "a storage that is a view of another");
  return new TorchStorage(key, storageDtypes.get(type.name), countOf(path, size));
}
