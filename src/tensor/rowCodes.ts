/** Rows as 8-bit floats with a scale each: what products with an fp8 weight are made of. */
import { activationKinds } from "../device/index.ts";
import type { Activation } from "../device/index.ts";
import type { Context } from "./context.ts";
import type { Tensor } from "./tensor.ts";

/** Rows (N, C) in E4M3, as the operator `quantiseRows` makes them. */
export interface RowCodes {
  /** u8 (N, C) */
  codes: Tensor;
  /** f32 (N) */
  scales: Tensor;
}

/** Codes and scales for rows (N, C), not yet assigned, owned by the innermost scope. */
export function emptyRowCodes(context: Context, numRows: number, width: number): RowCodes {
  return { codes: context.empty([numRows, width], "u8"), scales: context.empty([numRows], "f32") };
}

/** The rows of x (N, C) in E4M3. */
export function quantiseRows(context: Context, x: Tensor): RowCodes {
  const { numRows, width } = x;
  const found = emptyRowCodes(context, numRows, width);
  context.device.run("quantiseRows", { x, ...found, numRows, width, xRowStride: width });
  return found;
}

/** The rows that `activation`, or `gatedActivation`, of x would give, in E4M3; outside the tape. x (N, F), or (N, 2F) where gated. */
export function activationCodes(
  context: Context,
  x: Tensor,
  { name, isGated }: { name: Activation; isGated: boolean },
): RowCodes {
  const { numRows } = x;
  const width = isGated ? x.width / 2 : x.width;
  const found = emptyRowCodes(context, numRows, width);
  const shape = { numRows, width, kind: activationKinds[name], gated: Number(isGated) };
  context.device.run("activationCodes", { x, ...found, ...shape });
  return found;
}
