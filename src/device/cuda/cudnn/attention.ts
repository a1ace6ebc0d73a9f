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
  /** Sequences have lengths of their own, up to S, and lie one after the other. */
  readonly isPacked: boolean;
}

/** What the plan is told beyond the shape: lengths i32 (B), and for packed sequences where each starts in each tensor, i64. */
interface Layout {
  /** The lengths as rows and as columns of the scores: two tensors of one memory, undefined where all are S. */
  readonly rows?: GraphTensor;
  readonly columns?: GraphTensor;
  /** q, k, v, o, logSumExp. */
  readonly starts: readonly (GraphTensor | undefined)[];
  readonly ids: readonly number[];
}

/** Names of what a layout's ids stand for, in order. */
export const layoutTensors = ["rows", "columns", "q", "k", "v", "o", "logSumExp"] as const;

/** A plan and the tensors that it takes, in the order in which their addresses are given. */
export interface AttentionPlan {
  readonly plan: Plan;
  readonly ids: readonly number[];
}

/** (B, heads, S, D) of rows that hold all heads side by side. */
function rows(
  { B, S, D }: AttentionShape,
  heads: number,
  view: { stride: number; start: GraphTensor | undefined },
): ViewShape {
  const { stride, start } = view;
  const dimensions: Four = [B, heads, S, D];
  return { dimensions, strides: [S * stride, D, stride, 1], type: "bf16", raggedOffset: start };
}

interface ViewShape {
  readonly dimensions: Four;
  readonly strides: Four;
  readonly type: "bf16" | "f32";
  readonly raggedOffset?: GraphTensor | undefined;
}

/** The same with rows as columns. */
function transposed({ dimensions: [B, heads, S, D], strides: [b, h, s, d], ...rest }: ViewShape): ViewShape {
  return { dimensions: [B, heads, D, S], strides: [b, h, d, s], ...rest };
}

const perRow = ({ B, H, S }: AttentionShape): Four => [B, H, S, 1];
const scores = ({ B, H, S }: AttentionShape): Four => [B, H, S, S];

const dense = (dimensions: Four, type: "bf16" | "f32"): ViewShape => ({
  dimensions,
  strides: denseStrides(dimensions),
  type,
});

/** (H, numRows) as (B, H, S, 1). */
function perRowInMemory(shape: AttentionShape, start: GraphTensor | undefined): ViewShape {
  const strides: Four = [shape.S, shape.numRows, 1, 1];
  return { dimensions: perRow(shape), strides, type: "f32", raggedOffset: start };
}

function layoutOf(graph: GraphBuilder, { B, isPacked }: AttentionShape, hasLengths: boolean): Layout {
  if (!hasLengths) return { starts: [], ids: [] };
  const list = (length: number, type: "i32" | "i64"): GraphTensor =>
    graph.tensor({ dimensions: [length, 1, 1, 1], strides: [1, 1, 1, 1], type });
  const [rows, columns] = [list(B, "i32"), list(B, "i32")];
  const starts = isPacked ? [0, 1, 2, 3, 4].map(() => list(B + 1, "i64")) : [];
  return { rows, columns, starts, ids: [rows, columns, ...starts].map(({ id }) => id) };
}

/** Hides the scores beyond the lengths. */
function maskLengths(graph: GraphBuilder, { rows, columns }: Layout, score: GraphTensor): GraphTensor {
  if (rows === undefined || columns === undefined) return score;
  const row = graph.pointwise("index", score, { axis: 2, precision: "i32", type: "i32" });
  const column = graph.pointwise("index", score, { axis: 3, precision: "i32", type: "i32" });
  const types = { precision: "boolean", type: "boolean" } as const;
  const hasRow = graph.pointwise("lessThan", row, { b: rows, ...types });
  const hasColumn = graph.pointwise("lessThan", column, { b: columns, ...types });
  const isWithin = graph.pointwise("and", hasRow, { b: hasColumn, ...types });
  return graph.pointwise("select", score, { b: graph.constant(maskedScore(graph.library)), t: isWithin });
}

/** Hides the scores whose row is smaller than their column, if attention is causal. */
function maskFuture(graph: GraphBuilder, { isCausal }: AttentionShape, score: GraphTensor): GraphTensor {
  if (!isCausal) return score;
  const row = graph.pointwise("index", score, { axis: 2, type: "i32" });
  const column = graph.pointwise("index", score, { axis: 3, type: "i32" });
  const isSeen = graph.pointwise("greaterOrEqual", row, { b: column, precision: "boolean", type: "boolean" });
  return graph.pointwise("select", score, { b: graph.constant(maskedScore(graph.library)), t: isSeen });
}

/** scale * q k^T, with what lies beyond the lengths hidden. */
function scaledScores(
  graph: GraphBuilder,
  shape: AttentionShape,
  operands: { q: GraphTensor; k: GraphTensor; scale: GraphTensor; layout: Layout },
): GraphTensor {
  const { q, k, scale, layout } = operands;
  const product = graph.virtual(dense(scores(shape), "f32"));
  graph.matmul(q, k, product, { rows: layout.rows, columns: layout.columns });
  return maskLengths(graph, layout, graph.pointwise("multiply", product, { b: scale }));
}

/**
 * o = softmax(scale * q k^T) v. Addresses: q, k, v, o, logSumExp if `hasLogSumExp`, and for packed sequences those of
 * `layoutTensors`. Throws DeviceError where the library has no plan.
 */
export function planForward(library: Cudnn, shape: AttentionShape, hasLogSumExp: boolean): AttentionPlan {
  const graph = new GraphBuilder(library);
  const layout = layoutOf(graph, shape, shape.isPacked);
  const [qStart, kStart, vStart, oStart, logSumExpStart] = layout.starts;
  const q = graph.tensor(rows(shape, shape.H, { stride: shape.qRowStride, start: qStart }));
  const k = graph.tensor(transposed(rows(shape, shape.G, { stride: shape.kRowStride, start: kStart })));
  const v = graph.tensor(rows(shape, shape.G, { stride: shape.vRowStride, start: vStart }));
  const o = graph.tensor(rows(shape, shape.H, { stride: shape.oRowStride, start: oStart }));
  const rowVector = dense(perRow(shape), "f32");

  const visible = scaledScores(graph, shape, { q, k, scale: graph.constant(shape.scale), layout });
  const score = maskFuture(graph, shape, visible);
  const maximum = graph.reduce("maximum", score, graph.virtual(rowVector));
  const weight = graph.pointwise("exp", graph.pointwise("subtract", score, { b: maximum }));
  const sum = graph.reduce("sum", weight, graph.virtual(rowVector));
  const ids = [q.id, k.id, v.id, o.id];
  if (hasLogSumExp) {
    const logSumExp = graph.tensor(perRowInMemory(shape, logSumExpStart));
    graph.pointwise("add", maximum, { b: graph.pointwise("log", sum), y: logSumExp });
    ids.push(logSumExp.id);
  }
  const probability = graph.pointwise("divide", weight, { b: sum, type: "bf16" });
  graph.matmul(probability, v, o, { rows: layout.rows, inner: layout.columns });
  return { plan: graph.build(), ids: [...ids, ...layout.ids] };
}

/** Whether the backward plan takes lengths: packed sequences, and before 9.16 those that do not fill whole tiles of 128 keys. */
export function needsLengths(library: Cudnn, { S, isPacked }: AttentionShape): boolean {
  return isPacked || (S % 128 !== 0 && library.version < 91_600);
}

/** Bytes of the backward plan's scratch tensors. */
export interface BackwardScratch {
  readonly rowSumBytes: number;
  /** Zero in the deterministic plan. */
  readonly dqSumBytes: number;
  /** dk and dv of every query head; zero where the library finds room for them in its own workspace. */
  readonly perHeadBytes: number;
}

export function backwardScratch(shape: AttentionShape, isDeterministic: boolean): BackwardScratch {
  const { B, S, H, G, D, numRows, isPacked } = shape;
  const strides = shape.kRowStride + shape.vRowStride;
  return {
    rowSumBytes: (isPacked ? numRows : B * S) * H * 4,
    dqSumBytes: isDeterministic ? 0 : (isPacked ? numRows * shape.qRowStride : B * S * H * D) * 4,
    perHeadBytes: isPacked && H !== G ? numRows * strides * (H / G) * 2 : 0,
  };
}

/**
 * dq, dk, dv. Addresses: q, k, v, o, doutput, logSumExp, dq, dk, dv, then scratch: rowSum f32 (H, rows) and, unless
 * `isDeterministic`, dqSum f32 (with dq's strides or dense), in which dq is summed by atomic additions; for packed grouped heads dk and
 * dv of every query head; if `needsLengths`, those of `layoutTensors`. The deterministic plan writes the gradients of all scores to
 * memory instead of dqSum. Throws DeviceError where the library has no plan.
 */
export function planBackward(library: Cudnn, shape: AttentionShape, isDeterministic: boolean): AttentionPlan {
  const graph = new GraphBuilder(library);
  const { B, S, H, G, D } = shape;
  const layout = layoutOf(graph, shape, needsLengths(library, shape));
  const [qStart, kStart, vStart, oStart, logSumExpStart] = layout.starts;
  const qShape = rows(shape, H, { stride: shape.qRowStride, start: qStart });
  const kShape = rows(shape, G, { stride: shape.kRowStride, start: kStart });
  const vShape = rows(shape, G, { stride: shape.vRowStride, start: vStart });
  const oShape = rows(shape, H, { stride: shape.oRowStride, start: oStart });
  const q = graph.tensor(qShape);
  const k = graph.tensor(transposed(kShape));
  const v = graph.tensor(transposed(vShape));
  const o = graph.tensor(oShape);
  const doutput = graph.tensor(oShape);
  const logSumExp = graph.tensor(perRowInMemory(shape, logSumExpStart));
  const dq = graph.tensor(qShape);
  const dk = graph.tensor(kShape);
  const dv = graph.tensor(vShape);
  const rowVector = dense(perRow(shape), "f32");
  const rowSum = graph.tensor(shape.isPacked ? perRowInMemory(shape, logSumExpStart) : rowVector);
  const scratch = [rowSum];
  const scale = graph.constant(shape.scale);
  const { rows: queryLengths, columns: keyLengths } = layout;

  // rowSum = sum over d of doutput * o; the engines expect the product with a dropout factor, here one.
  const products = graph.pointwise("multiply", doutput, {
    b: o,
    y: graph.virtual({ dimensions: [B, H, S, D], strides: [H * S * D, S * D, H * D, 1], type: "f32" }),
  });
  const sums = graph.reduce("sum", products, graph.virtual(rowVector));
  graph.pointwise("multiply", sums, { b: graph.constant(1), y: rowSum });

  // p = exp(score - logSumExp); dv = p^T doutput
  const score = scaledScores(graph, shape, { q, k, scale, layout });
  const shifted = maskFuture(graph, shape, graph.pointwise("subtract", score, { b: logSumExp }));
  const p = graph.pointwise("exp", shifted);
  const dvPerHead = perHeadTensor(graph, shape, vShape);
  const dkPerHead = perHeadTensor(graph, shape, kShape);
  const sumOverGroup = (
    a: GraphTensor,
    b: GraphTensor,
    perHead: GraphTensor | undefined,
    target: GraphTensor,
  ): void => {
    const lengths = { rows: keyLengths, inner: queryLengths };
    if (perHead === undefined) graph.matmul(a, b, target, lengths);
    else graph.reduce("sum", graph.matmul(a, b, perHead, lengths), target);
  };
  sumOverGroup(graph.transpose(p, { type: "bf16" }), doutput, dvPerHead, dv);

  // ds = scale * p * (doutput v^T - rowSum); dk = ds^T q; dq = ds k
  const dp = graph.virtual(dense(scores(shape), "f32"));
  graph.matmul(doutput, v, dp, { rows: queryLengths, columns: keyLengths });
  const centred = graph.pointwise("subtract", dp, { b: rowSum });
  const ds = graph.pointwise("multiply", graph.pointwise("multiply", centred, { b: p }), { b: scale });
  sumOverGroup(graph.transpose(ds, { type: "bf16" }), q, dkPerHead, dk);
  const kRows = graph.transpose(k, { type: "f32", raggedOffset: kStart });
  const lengths = { rows: queryLengths, inner: keyLengths };
  if (isDeterministic) graph.matmul(ds, kRows, dq, lengths);
  else {
    const dqSum = graph.tensor(shape.isPacked ? { ...qShape, type: "f32" } : dense([B, H, S, D], "f32"));
    graph.matmul(ds, kRows, dqSum, lengths);
    graph.pointwise("identity", dqSum, { y: dq });
    scratch.push(dqSum);
  }
  if (shape.isPacked && dkPerHead !== undefined && dvPerHead !== undefined)
    scratch.push(dkPerHead, dvPerHead);
  const ids = [q, k, v, o, doutput, logSumExp, dq, dk, dv, ...scratch].map(({ id }) => id);
  return { plan: graph.build(), ids: [...ids, ...layout.ids] };
}

/**
 * The gradient of keys or values for every query head, before it is summed over the group; undefined where groups are single heads.
 * For packed sequences it lies in memory with its strides H / G times those of the target; the library multiplies the starts likewise.
 */
function perHeadTensor(
  graph: GraphBuilder,
  shape: AttentionShape,
  target: ViewShape,
): GraphTensor | undefined {
  const { B, S, H, G, D, isPacked } = shape;
  if (H === G) return undefined;
  if (!isPacked) return graph.virtual(dense([B, H, S, D], "bf16"));
  const [b, h, s, d] = target.strides;
  const strides: Four = [(b * H) / G, h, (s * H) / G, d];
  return graph.tensor({ ...target, dimensions: [B, H, S, D], strides });
}
