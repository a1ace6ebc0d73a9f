/**
 * Which dtypes a kernel takes: asks it, by running it on a problem of size one in memory of zeros. Kernels check dtypes
 * first, so the answer is `unsupported` or anything else; there is no second list of dtypes to keep.
 */
import type { Dtype } from "../../base/index.ts";
import type { DeviceBuffer, TensorArgument } from "../contract.ts";
import { tableDtypes } from "../dtypes.ts";
import { ops, type OpName, type OpSpec } from "../ops.ts";
import type { PackedArguments } from "./commands.ts";

/** Bytes of zeros for each tensor of a probe. */
const probeTensorBytes = 1024;

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
  const chosen = Object.entries(dtypes).find(([tensor]) => tableDtypes(name, tensor).length > 1)?.[1];
  const found: Record<string, TensorArgument | number> = {};
  let byteOffset = 0;
  for (const [tensor, access] of Object.entries(spec.tensors)) {
    const allowed = tableDtypes(name, tensor);
    const usual = allowed.length > 1 ? (chosen ?? allowed[0]) : allowed[0];
    const dtype = dtypes[tensor] ?? (access.endsWith("?") ? undefined : usual);
    if (dtype === undefined) continue;
    found[tensor] = { buffer: zeros, byteOffset, dtype };
    byteOffset += probeTensorBytes;
  }
  for (const number of [...spec.integers, ...spec.floats]) found[number] = 1;
  return found;
}
