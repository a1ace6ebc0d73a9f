/**
 * Cases of attention: one to many sequences, more keys than queries (the last query sees the last key), grouped heads, packed
 * sequences of which one is empty, head sizes 64, 128, 192 and odd ones, rows inside of a fused projection, scores that overflow without
 * care.
 */
import { close, conformanceCase, integers, operand } from "../case.ts";
import type { Check, ConformanceCase, Operand, Problem } from "../case.ts";
import type { DataSource, Values } from "../random.ts";
import { evaluate } from "../evaluate.ts";
import { floats, intermediateOf, type TensorDtype } from "./common.ts";

export interface AttentionSetting {
  numSequences?: number;
  queryLength: number;
  /** queryLength by default. */
  keyLength?: number;
  numHeads: number;
  numKvHeads: number;
  headDim: number;
  isCausal: boolean;
  /** Starts of packed sequences, and the end. */
  cuSeqLens?: readonly number[];
  /** Elements that rows of q, k and v are longer than their heads. */
  gap?: number;
  /** Standard deviation of the queries. */
  std?: number;
  hasLogSumExp?: boolean;
}

const settings: readonly AttentionSetting[] = [
  { queryLength: 1, numHeads: 1, numKvHeads: 1, headDim: 8, isCausal: true },
  { numSequences: 2, queryLength: 5, numHeads: 4, numKvHeads: 2, headDim: 16, isCausal: true },
  { numSequences: 2, queryLength: 5, numHeads: 4, numKvHeads: 4, headDim: 16, isCausal: false },
  { numSequences: 3, queryLength: 7, keyLength: 19, numHeads: 4, numKvHeads: 1, headDim: 32, isCausal: true },
  {
    numSequences: 3,
    queryLength: 7,
    keyLength: 19,
    numHeads: 4,
    numKvHeads: 1,
    headDim: 32,
    isCausal: false,
  },
  { queryLength: 1, keyLength: 130, numHeads: 6, numKvHeads: 3, headDim: 64, isCausal: true },
  { queryLength: 257, numHeads: 4, numKvHeads: 2, headDim: 64, isCausal: true, gap: 256 },
  { queryLength: 257, numHeads: 2, numKvHeads: 2, headDim: 128, isCausal: true },
  { queryLength: 130, keyLength: 257, numHeads: 2, numKvHeads: 1, headDim: 128, isCausal: true },
  { numSequences: 2, queryLength: 65, numHeads: 2, numKvHeads: 1, headDim: 192, isCausal: true },
  { queryLength: 70, numHeads: 2, numKvHeads: 2, headDim: 20, isCausal: true, gap: 4 },
  { queryLength: 33, numHeads: 3, numKvHeads: 1, headDim: 5, isCausal: true, gap: 1 },
  { queryLength: 40, numHeads: 2, numKvHeads: 2, headDim: 64, isCausal: true, std: 30 },
  {
    queryLength: 65,
    numHeads: 4,
    numKvHeads: 2,
    headDim: 64,
    isCausal: true,
    cuSeqLens: [0, 3, 3, 40, 41, 106],
    gap: 512,
  },
  {
    queryLength: 37,
    numHeads: 2,
    numKvHeads: 1,
    headDim: 32,
    isCausal: false,
    cuSeqLens: [0, 3, 40, 41],
  },
  { numSequences: 0, queryLength: 4, numHeads: 2, numKvHeads: 1, headDim: 32, isCausal: true },
];

function describe(setting: AttentionSetting): string {
  const { numSequences = 1, queryLength, keyLength = queryLength, cuSeqLens } = setting;
  const { numHeads, numKvHeads, headDim, isCausal, gap, std } = setting;
  const lengths =
    cuSeqLens === undefined
      ? `B ${numSequences} T ${queryLength} S ${keyLength}`
      : `packed ${cuSeqLens.join(",")}`;
  const extras = `${gap === undefined ? "" : ` gap ${gap}`}${std === undefined ? "" : ` std ${std}`}`;
  return `${lengths} H ${numHeads} G ${numKvHeads} D ${headDim}${isCausal ? " causal" : ""}${extras}`;
}

/** The arguments that both directions share. */
function sharedArguments(setting: AttentionSetting, dtype: TensorDtype, data: DataSource) {
  const {
    queryLength,
    keyLength = queryLength,
    numHeads,
    numKvHeads,
    headDim,
    cuSeqLens,
    gap = 0,
    std = 1,
  } = setting;
  const numSequences = cuSeqLens === undefined ? (setting.numSequences ?? 1) : cuSeqLens.length - 1;
  const numRows = cuSeqLens?.at(-1) ?? numSequences * queryLength;
  const numKeyRows = cuSeqLens?.at(-1) ?? numSequences * keyLength;
  const queryWidth = numHeads * headDim;
  const keyWidth = numKvHeads * headDim;
  const strides = {
    qRowStride: queryWidth + gap,
    kRowStride: keyWidth + gap,
    vRowStride: keyWidth + gap,
    oRowStride: queryWidth + (gap % 8),
  };
  const queryLike = (values?: Values, check?: Check): Operand =>
    operand(dtype, numRows, { width: queryWidth, stride: strides.qRowStride, ...optional(values, check) });
  const keyLike = (values?: Values, check?: Check): Operand =>
    operand(dtype, numKeyRows, { width: keyWidth, stride: strides.kRowStride, ...optional(values, check) });
  const outputLike = (values?: Values, check?: Check): Operand =>
    operand(dtype, numRows, { width: queryWidth, stride: strides.oRowStride, ...optional(values, check) });
  const shared = {
    q: queryLike(data.normal(numRows * queryWidth, { std })),
    k: keyLike(data.normal(numKeyRows * keyWidth)),
    v: keyLike(data.normal(numKeyRows * keyWidth)),
    cuSeqLens: cuSeqLens && integers("i32", cuSeqLens),
    numSequences,
    queryLength,
    keyLength,
    numRows,
    numHeads,
    numKvHeads,
    headDim,
    ...strides,
    causal: Number(setting.isCausal),
    scale: 1 / Math.sqrt(headDim),
  };
  return { shared, queryLike, keyLike, outputLike, numRows };
}

function optional(values: Values | undefined, check: Check | undefined): { values?: Values; check?: Check } {
  return { ...(values === undefined ? {} : { values }), ...(check === undefined ? {} : { check }) };
}

/**
 * Sums over keys and head components. The rounding error of a score is proportional to its size, and its exponential passes it on; the
 * allowance goes with the root of the length, so that the size enters squared.
 */
function closeness(
  { headDim, std = 1 }: AttentionSetting,
  dtype: TensorDtype,
  { numTerms, terms }: { numTerms: number; terms?: number },
): Check {
  const length = (headDim + numTerms) * std ** 2;
  return close({ length, intermediate: intermediateOf(dtype), ...(terms === undefined ? {} : { terms }) });
}

function forwardProblem(
  setting: AttentionSetting,
  dtype: TensorDtype,
  data: DataSource,
): Problem<"attentionForward"> & { logSumExp: Operand | undefined } {
  const { queryLength, keyLength = queryLength, hasLogSumExp = true, numHeads } = setting;
  const { shared, outputLike, numRows } = sharedArguments(setting, dtype, data);
  return {
    ...shared,
    o: outputLike(undefined, closeness(setting, dtype, { numTerms: keyLength })),
    logSumExp: hasLogSumExp
      ? operand("f32", numHeads, {
          width: numRows,
          check: close({ length: setting.headDim + keyLength, scale: setting.std ?? 1 }),
        })
      : undefined,
  };
}

export function attentionForwardCase(setting: AttentionSetting, dtype: TensorDtype): ConformanceCase {
  const label = `${dtype} ${describe(setting)}${setting.hasLogSumExp === false ? " without logSumExp" : ""}`;
  return conformanceCase("attentionForward", label, (data) => forwardProblem(setting, dtype, data));
}

export function attentionBackwardCase(setting: AttentionSetting, dtype: TensorDtype): ConformanceCase {
  const { queryLength, keyLength = queryLength, numHeads } = setting;
  return conformanceCase("attentionBackward", `${dtype} ${describe(setting)}`, (data) => {
    const { shared, queryLike, keyLike, outputLike, numRows } = sharedArguments(setting, dtype, data);
    let results: ReadonlyMap<string, Float64Array> | undefined;
    /** A result of the forward pass over the same data, as it would have been stored. */
    const forward = (name: "o" | "logSumExp"): Values => {
      return () => {
        results ??= evaluate("attentionForward", {
          ...shared,
          o: outputLike(),
          logSumExp: operand("f32", numHeads * numRows),
        });
        return results.get(name) ?? new Float64Array(0);
      };
    };
    const numTerms = Math.max(queryLength, keyLength);
    const check = closeness(setting, dtype, { numTerms });
    // A query that sees one key has no gradient: do v and the sum of o do are equal, of the size of their terms.
    const scoreCheck = closeness(setting, dtype, { numTerms, terms: setting.std ?? 1 });
    return {
      ...shared,
      o: outputLike(forward("o")),
      doutput: outputLike(data.normal(numRows * numHeads * setting.headDim)),
      logSumExp: operand("f32", numHeads * numRows, { values: forward("logSumExp") }),
      dq: queryLike(undefined, scoreCheck),
      dk: keyLike(undefined, scoreCheck),
      dv: keyLike(undefined, check),
    };
  });
}

export function attentionCases(): ConformanceCase[] {
  return floats.flatMap((dtype) => [
    ...settings.flatMap((setting) => [
      attentionForwardCase(setting, dtype),
      attentionBackwardCase(setting, dtype),
    ]),
    attentionForwardCase({ ...settings[1], hasLogSumExp: false }, dtype),
  ]);
}
