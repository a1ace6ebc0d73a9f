/**
 * Checks of an operator's arguments that the table alone allows: what is missing, of a wrong dtype, or no sensible number.
 * A violation is a fault of the caller's code, and is told by the names of the table.
 */
import { dtypeBytes, invariant, UnsupportedOpError } from "../../base/index.ts";
import type { Dtype } from "../../base/index.ts";
import type { Device, TensorArgument } from "../contract.ts";
import { cacheDtypes, floatTensorDtypes, tableDtypes } from "../dtypes.ts";
import { ops, type OpName, type OpSpec } from "../ops.ts";
import { bytesOf } from "./memory.ts";

/** An operator's arguments by name. */
export type NamedArguments = Readonly<Record<string, TensorArgument | number | undefined>>;

/** Whole numbers that may be below zero; all others are lengths, strides, switches and seeds. */
const mayBeNegative: ReadonlySet<string> = new Set(["ignoreIndex"]);
const switches: ReadonlySet<string> = new Set([
  "transposeA",
  "transposeB",
  "causal",
  "inverse",
  "writeGradient",
  "stochasticRounding",
]);
const floatDtypes: readonly Dtype[] = ["f32", "bf16", "f16", "f64"];

/** The dtypes that the reference takes: where the table has f32 and bf16, any float dtype. */
export function referenceDtypes(op: OpName, tensor: string): readonly Dtype[] {
  const allowed = tableDtypes(op, tensor);
  if (allowed === cacheDtypes) return [...floatDtypes, "u8"];
  return allowed === floatTensorDtypes ? floatDtypes : allowed;
}

/** Throws InvariantError, DisposedError, UnsupportedOpError. */
export function checkArguments(op: OpName, args: NamedArguments, device: Device): void {
  const spec: OpSpec = ops[op];
  for (const [name, access] of Object.entries(spec.tensors)) {
    const tensor = args[name];
    if (tensor === undefined) {
      invariant(access.endsWith("?"), `${op} needs the tensor ${name}`);
      continue;
    }
    invariant(typeof tensor === "object" && tensor !== null, `${op} needs a tensor for ${name}`);
    checkTensor(op, { name, tensor, device });
  }
  for (const name of spec.integers) checkInteger(op, name, args[name]);
  for (const name of spec.floats)
    invariant(typeof args[name] === "number", `${op} needs a number for ${name}`);
}

function checkInteger(op: OpName, name: string, value: NamedArguments[string]): void {
  invariant(
    typeof value === "number" && Number.isSafeInteger(value),
    `${op} needs a whole number below 2^53 for ${name}`,
  );
  invariant(value >= 0 || mayBeNegative.has(name), `${op} got ${name} = ${value}`);
  invariant(value <= 1 || !switches.has(name), `${op} needs 0 or 1 for ${name}, got ${value}`);
}

function checkTensor(
  op: OpName,
  { name, tensor, device }: { name: string; tensor: TensorArgument; device: Device },
): void {
  const { buffer, byteOffset, dtype } = tensor;
  invariant(buffer.device === device, `${op} got a buffer of another device for ${name}`);
  bytesOf(buffer);
  invariant(
    Number.isSafeInteger(byteOffset) && byteOffset >= 0 && byteOffset % dtypeBytes(dtype) === 0,
    `${op} got ${name} at byte ${byteOffset}, which is no place of a ${dtype}`,
  );
  if (!referenceDtypes(op, name).includes(dtype)) {
    throw new UnsupportedOpError(
      "reference",
      `expected ${referenceDtypes(op, name).join(" or ")} for ${name} of ${op}, got ${dtype}`,
    );
  }
}
