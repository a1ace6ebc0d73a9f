/**
 * The operator table: one row per native entry point. Argument types, packing, the C header, the reference's total map and
 * docs/ops.md follow from it, so that a missing rule does not compile.
 *
 * Conventions for every row: tensors are row-major and contiguous unless a `…RowStride` (in elements) says otherwise;
 * `read` tensors are never written; `write` tensors are assigned and may hold anything before; `update` tensors are read
 * and written; `?` marks a tensor that may be null. Float tensors are f32 or bf16 where not said otherwise, arithmetic is at
 * least f32, and a result is rounded once, to nearest even, when it is stored. Booleans are integers 0 or 1.
 * Every operator is deterministic for a given device, thread count and build. Empty tensors (zero rows) are valid.
 */
import { activationOps } from "./ops/activation.ts";
import { adapterOps } from "./ops/adapter.ts";
import { attentionOps } from "./ops/attention.ts";
import { elementwiseOps } from "./ops/elementwise.ts";
import { embeddingOps } from "./ops/embedding.ts";
import { lossOps } from "./ops/loss.ts";
import { matmulOps } from "./ops/matmul.ts";
import { normOps } from "./ops/norm.ts";
import { optimizerOps } from "./ops/optimizer.ts";
import { quantiseOps } from "./ops/quantise.ts";
import { rowAdapterOps } from "./ops/rowAdapter.ts";
import { samplingOps } from "./ops/sampling.ts";
import type { OpSpec } from "./ops/spec.ts";

export { activationKinds, type Activation } from "./ops/activation.ts";
export {
  groupFormats,
  isPacked,
  nf4Values,
  quantisedFormats,
  type GroupFormat,
  type QuantisedFormat,
} from "./ops/quantise.ts";
export type { OpSpec, TensorAccess } from "./ops/spec.ts";

/** All rows, by operator; a family lies in ops/<family>.ts. */
export const ops = {
  ...elementwiseOps,
  ...embeddingOps,
  ...matmulOps,
  ...quantiseOps,
  ...rowAdapterOps,
  ...normOps,
  ...attentionOps,
  ...activationOps,
  ...lossOps,
  ...adapterOps,
  ...samplingOps,
  ...optimizerOps,
} as const satisfies Record<string, OpSpec>;

export type OpName = keyof typeof ops;
export const opNames = Object.keys(ops) as readonly OpName[];
