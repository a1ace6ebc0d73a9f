/**
 * Which dtypes each tensor of the operator table may have, as the table's summaries say. A backend may take fewer (that is what
 * `Device.supports` tells) or, as the reference does, more.
 */
import type { Dtype } from "../base/index.ts";
import type { OpName } from "./ops.ts";

/** What "float tensors" of the table are. */
export const floatTensorDtypes: readonly Dtype[] = ["f32", "bf16"];
/** What a paged cache may hold: u8 are E4M3 codes. */
export const cacheDtypes: readonly Dtype[] = [...floatTensorDtypes, "u8"];
const f32: readonly Dtype[] = ["f32"];
const f64: readonly Dtype[] = ["f64"];
const i32: readonly Dtype[] = ["i32"];
const i64: readonly Dtype[] = ["i64"];
const u8: readonly Dtype[] = ["u8"];

/** Tensors whose name says their dtype, whatever the operator. */
const byName: Readonly<Record<string, readonly Dtype[]>> = {
  tokens: i32,
  targets: i32,
  positions: i32,
  slots: i32,
  cuSeqLens: i32,
  blockTables: i32,
  contextLengths: i32,
  queryStarts: i32,
  history: i32,
  historyLengths: i32,
  topK: i32,
  seeds: i64,
  counters: i64,
  accumulator: f64,
  sumOfSquares: f64,
  mean: f32,
  rstd: f32,
  losses: f32,
  rowScales: f32,
  logSumExp: f32,
  cosSin: f32,
  norm: f32,
  coefficient: f32,
  master: f32,
  temperature: f32,
  topP: f32,
  minP: f32,
  repetition: f32,
  presence: f32,
  frequency: f32,
  logprobs: f32,
  sources: i32,
  starts: i32,
  drawn: i32,
  known: i32,
  biases: f32,
  entryLengths: i32,
  rows: i32,
  allowed: i32,
  ranks: i32,
  topTokens: i32,
  topLogprobs: f32,
  codes: u8,
  scales: f32,
  scaleCodes: u8,
  scaleTable: f32,
  scaleScales: f32,
  aScales: f32,
  bScales: f32,
  kCache: cacheDtypes,
  vCache: cacheDtypes,
  kScales: f32,
  vScales: f32,
};

/** Rows of the table that differ from the rest. */
const byOp: { readonly [Name in OpName]?: Readonly<Record<string, readonly Dtype[]>> } = {
  fill: { y: ["f32", "bf16", "f16", "f64", "i32", "i64", "u8"] },
  convert: { x: ["f32", "bf16", "f16", "f64"], y: ["f32", "bf16", "f16", "f64"] },
  matmulScaled: { a: u8, b: u8 },
  adapterDown: { low: f32 },
  adapterUp: { low: f32 },
  applyPenalties: { logits: f32 },
  sample: { logits: f32 },
  biasLogits: { logits: f32 },
  maskLogits: { logits: f32 },
  tokenLogprobs: { logits: f32 },
};

/** The dtypes that the operator table allows for `tensor` of `op`. */
export function tableDtypes(op: OpName, tensor: string): readonly Dtype[] {
  return byOp[op]?.[tensor] ?? byName[tensor] ?? floatTensorDtypes;
}
