/**
 * Which dtypes a kernel takes: asks it, by running it on a problem of size one in memory of zeros. Kernels check dtypes
 * first, so the answer is `unsupported` or anything else; there is no second list of dtypes to keep.
 */
import type { Dtype } from "../../base/index.ts";
import type { DeviceBuffer, TensorArgument } from "../contract.ts";
import { ops, type OpName, type OpSpec } from "../ops.ts";
import type { PackedArguments } from "./commands.ts";

/** Bytes of zeros for each tensor of a probe. */
const probeTensorBytes = 1024;

/** The tensors that are not of the caller's choice, for callers that do not name them. */
const fixedDtypes: Readonly<Record<string, Dtype>> = {
  tokens: "i32",
  targets: "i32",
  positions: "i32",
  slots: "i32",
  cuSeqLens: "i32",
  blockTables: "i32",
  contextLengths: "i32",
  queryStarts: "i32",
  history: "i32",
  historyLengths: "i32",
  topK: "i32",
  seeds: "i64",
  counters: "i64",
  accumulator: "f64",
  sumOfSquares: "f64",
  mean: "f32",
  rstd: "f32",
  losses: "f32",
  logSumExp: "f32",
  cosSin: "f32",
  norm: "f32",
  coefficient: "f32",
  master: "f32",
};

/** Bytes that the probe of any operator needs. */
export const probeBytes =
  probeTensorBytes * Math.max(...Object.values(ops).map((spec) => Object.keys(spec.tensors).length));

/**
 * The arguments of a probe over `zeros` (probeBytes of them): every tensor of `dtypes`, and the others that the operator
 * cannot do without, in their only dtype or that of the first float tensor named; every number is 1.
 */
export function probeArguments(
  name: OpName,
  dtypes: Readonly<Partial<Record<string, Dtype>>>,
  zeros: DeviceBuffer,
): PackedArguments {
  const spec: OpSpec = ops[name];
  const chosen = Object.entries(dtypes).find(([tensor]) => !(tensor in fixedDtypes))?.[1] ?? "f32";
  const found: Record<string, TensorArgument | number> = {};
  let byteOffset = 0;
  for (const [tensor, access] of Object.entries(spec.tensors)) {
    const dtype = dtypes[tensor] ?? (access.endsWith("?") ? undefined : (fixedDtypes[tensor] ?? chosen));
    if (dtype === undefined) continue;
    found[tensor] = { buffer: zeros, byteOffset, dtype };
    byteOffset += probeTensorBytes;
  }
  for (const number of [...spec.integers, ...spec.floats]) found[number] = 1;
  return found;
}
