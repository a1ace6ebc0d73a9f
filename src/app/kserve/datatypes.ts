/**
 * Element types of the KServe v2 protocol ("Open Inference Protocol"), their sizes, and their names in Triton's model
 * configuration. Values are typed arrays in the machine's order, which is the protocol's (little-endian).
 */
import { endianness } from "node:os";
import { invariant } from "../../base/index.ts";

export const numericDatatypes = {
  BOOL: { bytes: 1, configName: "TYPE_BOOL" },
  UINT8: { bytes: 1, configName: "TYPE_UINT8" },
  UINT16: { bytes: 2, configName: "TYPE_UINT16" },
  UINT32: { bytes: 4, configName: "TYPE_UINT32" },
  UINT64: { bytes: 8, configName: "TYPE_UINT64" },
  INT8: { bytes: 1, configName: "TYPE_INT8" },
  INT16: { bytes: 2, configName: "TYPE_INT16" },
  INT32: { bytes: 4, configName: "TYPE_INT32" },
  INT64: { bytes: 8, configName: "TYPE_INT64" },
  FP16: { bytes: 2, configName: "TYPE_FP16" },
  FP32: { bytes: 4, configName: "TYPE_FP32" },
  FP64: { bytes: 8, configName: "TYPE_FP64" },
  BF16: { bytes: 2, configName: "TYPE_BF16" },
} as const;

export type NumericDatatype = keyof typeof numericDatatypes;
/** BYTES is a list of byte strings; its name in a configuration is TYPE_STRING. */
export type Datatype = NumericDatatype | "BYTES";

export type NumericData =
  | Uint8Array
  | Uint16Array
  | Uint32Array
  | BigUint64Array
  | Int8Array
  | Int16Array
  | Int32Array
  | BigInt64Array
  | Float16Array
  | Float32Array
  | Float64Array;

export function isDatatype(name: string): name is Datatype {
  return name === "BYTES" || Object.hasOwn(numericDatatypes, name);
}

/** The datatype of a configuration's name ("TYPE_STRING"), or undefined. */
export function fromConfigName(configName: string): Datatype | undefined {
  if (configName === "TYPE_STRING") return "BYTES";
  return datatypeNames.find((datatype) => toConfigName(datatype) === configName);
}

export function toConfigName(datatype: Datatype): string {
  return datatype === "BYTES" ? "TYPE_STRING" : numericDatatypes[datatype].configName;
}

const datatypeNames: readonly Datatype[] = [
  "BOOL",
  "UINT8",
  "UINT16",
  "UINT32",
  "UINT64",
  "INT8",
  "INT16",
  "INT32",
  "INT64",
  "FP16",
  "FP32",
  "FP64",
  "BF16",
  "BYTES",
];

const makers: Readonly<Record<NumericDatatype, (buffer: ArrayBuffer) => NumericData>> = {
  BOOL: (buffer) => new Uint8Array(buffer),
  UINT8: (buffer) => new Uint8Array(buffer),
  UINT16: (buffer) => new Uint16Array(buffer),
  UINT32: (buffer) => new Uint32Array(buffer),
  UINT64: (buffer) => new BigUint64Array(buffer),
  INT8: (buffer) => new Int8Array(buffer),
  INT16: (buffer) => new Int16Array(buffer),
  INT32: (buffer) => new Int32Array(buffer),
  INT64: (buffer) => new BigInt64Array(buffer),
  FP16: (buffer) => new Float16Array(buffer),
  FP32: (buffer) => new Float32Array(buffer),
  FP64: (buffer) => new Float64Array(buffer),
  // The 16-bit patterns: base's fromBf16Bits gives their values.
  BF16: (buffer) => new Uint16Array(buffer),
};

/** Typed values over a copy of `bytes`, whose length must be a whole number of elements. */
export function numericDataFrom(datatype: NumericDatatype, bytes: Uint8Array): NumericData {
  invariant(endianness() === "LE", "the tensor protocol is little-endian, and so must the machine be");
  return makers[datatype](new Uint8Array(bytes).buffer);
}

/** `count` zeros. */
export function zeros(datatype: NumericDatatype, count: number): NumericData {
  return makers[datatype](new ArrayBuffer(count * numericDatatypes[datatype].bytes));
}
