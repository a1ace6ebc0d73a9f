/**
 * Attention and its gradient as cuDNN graphs, in the form that the library recognises as flash attention: products, scale,
 * mask, softmax and reductions, with every score kept on chip. Knows shapes and strides; nothing of memory or launches.
 * Source: Dao et al. 2022, FlashAttention (arXiv 2205.14135), equations of section 3 and appendix B; the developer guide of cuDNN 9
 * (fused flash attention) for the order of operations that its engines match.
 */
import type { Cudnn } from "./library.ts";
import { denseStrides, GraphBuilder, type Four, type GraphTensor, type Plan } from "./graph.ts";

/** What a masked score becomes. Engines before 9.10 want a finite number, later ones recognise the mask by its infinity. */
const maskedScore = (library: Cudnn): number =>
  library.version < 91_000 ? -3.402_823_466_385_288_6e38 : Number.NEGATIVE_INFINITY;

/** Dimensions and row strides, in elements. B sequences of S query and key rows, H query heads, G key/value heads. */
export interface AttentionShape {
  readonly B: number;
  readonly S: number;
  readonly H: number;
  readonly G: number;
  readonly D: number;
  readonly qRowStride: number;
  readonly kRowStride: number;
  readonly vRowStride: number;
  readonly oRowStride: number;
  /** Rows of a head in logSumExp (H, numRows). */
  readonly numRows: number;
  readonly isCausal: boolean;
  readonly scale: number;
}

/** A plan and the tensors that it takes, in the order in which their addresses are given. */
export interface AttentionPlan {
  readonly plan: Plan;
  readonly ids: readonly number[];
}

/** (B, heads, S, D) of rows that hold all heads side by side. */
function rows({ B, S, D }: AttentionShape, heads: number, rowStride: number): ViewShape {
  return { dimensions: [B, heads, S, D], strides: [S * rowStride, D, rowStride, 1], type: "bf16" };
}

interface ViewShape {
  readonly dimensions: Four;
  readonly strides: Four;
  readonly type: "bf16" | "f32";
}

/** The same with rows as columns. */
function transposed({ dimensions: [B, heads, S, D], strides: [b, h, s, d], type }: ViewShape): ViewShape {
  return { dimensions: [B, heads, D, S], strides: [b, h, d, s], type };
}

const perRow = ({ B, H, S }: AttentionShape): Four => [B, H, S, 1];
const scores = ({ B, H, S }: AttentionShape): Four => [B, H, S, S];

const dense = (dimensions: Four, type: "bf16" | "f32"): ViewShape => ({
  dimensions,
  strides: denseStrides(dimensions),
  type,
});

/** logSumExp (H, numRows) as (B, H, S, 1). */
function logSumExpShape(shape: AttentionShape): ViewShape {
  return { dimensions: perRow(shape), strides: [shape.S, shape.numRows, 1, 1], type: "f32" };
}

/** Hides the scores whose row is smaller than their column, if attention is causal. */
function mask(graph: GraphBuilder, { isCausal }: AttentionShape, score: GraphTensor): GraphTensor {
  if (!isCausal) return score;
  const row = graph.pointwise("index", score, { axis: 2, type: "i32" });
  const column = graph.pointwise("index", score, { axis: 3, type: "i32" });
  const isSeen = graph.pointwise("greaterOrEqual", row, { b: column, precision: "boolean", type: "boolean" });
  return graph.pointwise("select", score, { b: graph.constant(maskedScore(graph.library)), t: isSeen });
}

/** scale * q k^T */
function scaledScores(
  graph: GraphBuilder,
  shape: AttentionShape,
  operands: { q: GraphTensor; k: GraphTensor; scale: GraphTensor },
): GraphTensor {
  const product = graph.matmul(operands.q, operands.k, graph.virtual(dense(scores(shape), "f32")));
  return graph.pointwise("multiply", product, { b: operands.scale });
}

/**
 * o = softmax(scale * q k^T) v. Addresses: q, k, v, o, and logSumExp if `hasLogSumExp`. Throws DeviceError where the library has no
 * plan.
 */
export function planForward(library: Cudnn, shape: AttentionShape, hasLogSumExp: boolean): AttentionPlan {
  const graph = new GraphBuilder(library);
  const q = graph.tensor(rows(shape, shape.H, shape.qRowStride));
  const k = graph.tensor(transposed(rows(shape, shape.G, shape.kRowStride)));
  const v = graph.tensor(rows(shape, shape.G, shape.vRowStride));
  const o = graph.tensor(rows(shape, shape.H, shape.oRowStride));
  const rowVector = dense(perRow(shape), "f32");

  const score = mask(graph, shape, scaledScores(graph, shape, { q, k, scale: graph.constant(shape.scale) }));
  const maximum = graph.reduce("maximum", score, graph.virtual(rowVector));
  const weight = graph.pointwise("exp", graph.pointwise("subtract", score, { b: maximum }));
  const sum = graph.reduce("sum", weight, graph.virtual(rowVector));
  const ids = [q.id, k.id, v.id, o.id];
  if (hasLogSumExp) {
    const logSumExp = graph.tensor(logSumExpShape(shape));
    graph.pointwise("add", maximum, { b: graph.pointwise("log", sum), y: logSumExp });
    ids.push(logSumExp.id);
  }
  const probability = graph.pointwise("divide", weight, { b: sum, type: "bf16" });
  graph.matmul(probability, v, o);
  return { plan: graph.build(), ids };
}

/**
 * dq, dk, dv. Addresses: q, k, v, o, doutput, logSumExp, dq, dk, dv, then scratch: rowSum f32 (B, H, S) and, unless
 * `isDeterministic`, dqSum f32 (B, H, S, D), in which dq is summed by atomic additions. The deterministic plan writes the
 * gradients of all scores to memory instead. Throws DeviceError where the library has no plan.
 */
export function planBackward(library: Cudnn, shape: AttentionShape, isDeterministic: boolean): AttentionPlan {
  const { B, S, H, G, D } = shape;
  const graph = new GraphBuilder(library);
  const qShape = rows(shape, H, shape.qRowStride);
  const kShape = rows(shape, G, shape.kRowStride);
  const vShape = rows(shape, G, shape.vRowStride);
  const oShape = rows(shape, H, shape.oRowStride);
  const q = graph.tensor(qShape);
  const k = graph.tensor(transposed(kShape));
  const v = graph.tensor(transposed(vShape));
  const o = graph.tensor(oShape);
  const doutput = graph.tensor(oShape);
  const logSumExp = graph.tensor(logSumExpShape(shape));
  const dq = graph.tensor(qShape);
  const dk = graph.tensor(kShape);
  const dv = graph.tensor(vShape);
  const rowVector = dense(perRow(shape), "f32");
  const rowSum = graph.tensor(rowVector);
  const scale = graph.constant(shape.scale);

  // rowSum = sum over d of doutput * o; the engines expect the product with a dropout factor, here one.
  const products = graph.pointwise("multiply", doutput, {
    b: o,
    y: graph.virtual({ dimensions: [B, H, S, D], strides: [H * S * D, S * D, H * D, 1], type: "f32" }),
  });
  const sums = graph.reduce("sum", products, graph.virtual(rowVector));
  graph.pointwise("multiply", sums, { b: graph.constant(1), y: rowSum });

  // p = exp(score - logSumExp); dv = p^T doutput
  const score = scaledScores(graph, shape, { q, k, scale });
  const shifted = mask(graph, shape, graph.pointwise("subtract", score, { b: logSumExp }));
  const p = graph.pointwise("exp", shifted);
  const sumOverGroup = (a: GraphTensor, b: GraphTensor, target: GraphTensor): void => {
    if (H === G) graph.matmul(a, b, target);
    else graph.reduce("sum", graph.matmul(a, b, graph.virtual(dense([B, H, S, D], "bf16"))), target);
  };
  sumOverGroup(graph.transpose(p, { type: "bf16" }), doutput, dv);

  // ds = scale * p * (doutput v^T - rowSum); dk = ds^T q; dq = ds k
  const dp = graph.matmul(doutput, v, graph.virtual(dense(scores(shape), "f32")));
  const centred = graph.pointwise("subtract", dp, { b: rowSum });
  const ds = graph.pointwise("multiply", graph.pointwise("multiply", centred, { b: p }), { b: scale });
  sumOverGroup(graph.transpose(ds, { type: "bf16" }), q, dk);
  const ids = [q, k, v, o, doutput, logSumExp, dq, dk, dv, rowSum].map(({ id }) => id);
  const kRows = graph.transpose(k, { type: "f32" });
  if (isDeterministic) graph.matmul(ds, kRows, dq);
  else {
    const dqSum = graph.tensor(dense([B, H, S, D], "f32"));
    graph.matmul(ds, kRows, dqSum);
    graph.pointwise("identity", dqSum, { y: dq });
    ids.push(dqSum.id);
  }
  return { plan: graph.build(), ids };
}
