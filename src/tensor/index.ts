/** Tensors, the tape, scopes and the differentiable operators. Knows the device contract, not which backend is loaded. */
export { Context } from "./context.ts";
export type { CapturedGraph } from "./context.ts";
export { Parameter } from "./parameter.ts";
export type { ParameterOptions } from "./parameter.ts";
export { recomputed } from "./recompute.ts";
export { gradientSink, needsGradient, record, Tape, watch } from "./tape.ts";
export type { RecomputePolicy } from "./saved.ts";
export { Storage, Tensor, Variable } from "./tensor.ts";
export type { PendingValues } from "./tensor.ts";
export type { Activation, QuantisedFormat } from "../device/index.ts";
export { dropout, lowRankLinear, multiply, promptEmbedding, scaleColumns } from "./ops/adapter.ts";
export type { DropoutOptions, LowRankPart, LowRankUpdate, ScaledColumns } from "./ops/adapter.ts";
export { activation, gatedActivation } from "./ops/activation.ts";
export {
  pagedSelfAttention,
  qkvWidth,
  rotaryTable,
  rotateQueriesAndKeys,
  selfAttention,
} from "./ops/attention.ts";
export type {
  AttentionOptions,
  HeadLayout,
  PagedBatch,
  PagedLayerCache,
  RotaryTable,
} from "./ops/attention.ts";
export { add, convert, sum } from "./ops/elementwise.ts";
export { embedding } from "./ops/embedding.ts";
export { gatherRows, rowIndex } from "./ops/gather.ts";
export type { RowIndex } from "./ops/gather.ts";
export {
  linear,
  linearOfCodes,
  matmulInto,
  multiplyByTransposedWeight,
  multiplyByWeight,
  takesCodes,
} from "./ops/linear.ts";
export type { FrozenWeight, LinearWeight } from "./ops/linear.ts";
export { languageModelLoss, tokenLosses } from "./ops/loss.ts";
export type { LanguageModelLossOptions, TokenLossOptions } from "./ops/loss.ts";
export { normalise } from "./ops/norm.ts";
export type { NormResult, NormWeights } from "./ops/norm.ts";
export { stackRows } from "./ops/stack.ts";
export type { QuantisedWeight } from "./quantised.ts";
export { quantisedBytes, quantisedWeight } from "./quantisedFormats.ts";
export type { QuantisedOptions } from "./quantisedFormats.ts";
export { activationCodes } from "./rowCodes.ts";
export type { RowCodes } from "./rowCodes.ts";
export { StackedWeight } from "./stacked.ts";
export { arenaLayout, ParameterStore } from "./parameterStore.ts";
export type { Initializer, ParameterArena, ParameterSpec, ParameterStoreOptions } from "./parameterStore.ts";
