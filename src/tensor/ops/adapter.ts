/**
 * What adapters are made of: a linear layer with low-rank updates (LoRA: Hu et al., 2021), scaled columns (IA3: Liu et al., 2022; the
 * magnitudes of DoRA: Liu et al., 2024), dropout, products of elements, and rows of virtual tokens in the embedding.
 */
import { invariant, ShapeError } from "../../base/index.ts";
import type { Context } from "../context.ts";
import { Parameter } from "../parameter.ts";
import { needsGradient, record, reuse } from "../tape.ts";
import { Tensor } from "../tensor.ts";
import { matmulInto, multiplyByTransposedWeight, multiplyByWeight } from "./linear.ts";
import type { LinearWeight } from "./linear.ts";

/** A product b a (n, C) that is added to rows outputStart .. outputStart + n of a weight. */
export interface LowRankPart {
  /** (n, r) */
  b: Tensor;
  /** First of the r rows of `a` that belong to it. */
  rankStart: number;
  outputStart: number;
  scale: number;
}

export interface LowRankUpdate {
  /** (R, C): the parts' factors under each other, so that one product makes what all of them need. */
  a: Tensor;
  parts: readonly LowRankPart[];
  /** What `a` multiplies, (N, C): x, or x after dropout. */
  input?: Tensor;
}

/**
 * y = x W^T + bias, and for each part y[:, its rows] += scale (input a^T) b^T; x (N, C) -> (N, F). W and bias are frozen; only x, a and the
 * b take gradients, and what is kept is x and (N, R) values. Throws ShapeError.
 */
export function lowRankLinear(
  context: Context,
  x: Tensor,
  { weight, bias, update }: { weight: LinearWeight; bias?: Tensor | undefined; update: LowRankUpdate },
): Tensor {
  const [widthOut, widthIn] = weight.shape;
  const { a, parts, input = x } = update;
  if (x.width !== widthIn || a.width !== widthIn)
    throw new ShapeError(
      "lowRankLinear",
      `expected x and a of width ${widthIn}, got ${x.width} and ${a.width}`,
    );
  const { numRows } = x;
  const rank = a.numRows;
  const y = context.empty([numRows, widthOut], x.dtype);
  multiplyByWeight(context, { x, y }, { weight, bias });
  const lowered = context.empty([numRows, rank], x.dtype);
  matmulInto(context, { a: input, b: a, c: lowered }, { m: numRows, n: rank, k: widthIn, transposeB: true });
  const strides = { rank, widthOut, numRows };
  for (const part of parts) addPart(context, { lowered, y }, { part, ...strides });

  record(context, [y], {
    name: "lowRankLinear",
    inputs: [x, input === x ? undefined : input, a, ...parts.map(({ b }) => b)],
    save: [lowered, input, a, ...(weight instanceof Tensor ? [weight] : [])],
    backward: ([dy], [savedLowered, savedInput, savedA, savedWeight]) => {
      if (dy === undefined) return [];
      const dlowered = context.empty([numRows, rank], dy.dtype);
      for (const part of parts)
        partGradients(context, { dy, dlowered, lowered: savedLowered.get() }, { part, ...strides });
      if (a instanceof Parameter && a.isTrainable) {
        const { gradient, beta } = a.gradientTarget();
        const operands = { a: dlowered, b: savedInput.get(), c: gradient };
        matmulInto(context, operands, { m: rank, n: widthIn, k: numRows, transposeA: true, beta });
      }
      const back = (dx: Tensor, beta: 0 | 1): Tensor => {
        const operands = { a: dlowered, b: savedA.get(), c: dx };
        matmulInto(context, operands, { m: numRows, n: widthIn, k: rank, beta });
        return dx;
      };
      let dx: Tensor | undefined;
      if (x.variable !== undefined) {
        dx = context.empty([numRows, widthIn], x.dtype);
        multiplyByTransposedWeight(
          context,
          { dy, dx },
          weight instanceof Tensor ? savedWeight.get() : weight,
        );
        if (input === x) back(dx, 1);
      }
      const hasOwnInput = input !== x && input.variable !== undefined;
      return [dx, hasOwnInput ? back(context.empty([numRows, widthIn], x.dtype), 0) : undefined];
    },
  });
  return y;
}

interface PartShape {
  part: LowRankPart;
  rank: number;
  widthOut: number;
  numRows: number;
}

/** y[:, the part's rows] += scale lowered[:, its ranks] b^T */
function addPart(
  context: Context,
  { lowered, y }: { lowered: Tensor; y: Tensor },
  { part, rank, widthOut, numRows }: PartShape,
): void {
  const { b, rankStart, outputStart, scale } = part;
  const [n, k] = b.shape;
  invariant(rankStart + k <= rank && outputStart + n <= widthOut, "a low-rank part lies within its weight");
  context.device.run("matmul", {
    a: lowered.at(rankStart),
    b,
    c: y.at(outputStart),
    m: numRows,
    n,
    k,
    lda: rank,
    ldb: k,
    ldc: widthOut,
    transposeA: 0,
    transposeB: 1,
    alpha: scale,
    beta: 1,
  });
}

/** dlowered[:, the part's ranks] = scale dy[:, its rows] b, and db += scale dy[:, its rows]^T lowered[:, its ranks]. */
function partGradients(
  context: Context,
  { dy, dlowered, lowered }: { dy: Tensor; dlowered: Tensor; lowered: Tensor },
  { part, rank, widthOut, numRows }: PartShape,
): void {
  const { b, rankStart, outputStart, scale } = part;
  const [numOutputs, numRanks] = b.shape;
  const gradients = { dy: dy.at(outputStart), b, dlow: dlowered.at(rankStart) };
  if (b instanceof Parameter && b.isTrainable) {
    const { gradient, beta } = b.gradientTarget();
    context.device.run("lowRankBackward", {
      ...gradients,
      low: lowered.at(rankStart),
      db: gradient,
      numRows,
      width: numOutputs,
      rank: numRanks,
      dyRowStride: widthOut,
      lowRowStride: rank,
      dlowRowStride: rank,
      alpha: scale,
      beta,
    });
    return;
  }
  context.device.run("matmul", {
    a: gradients.dy,
    b,
    c: gradients.dlow,
    m: numRows,
    n: numRanks,
    k: numOutputs,
    lda: widthOut,
    ldb: numRanks,
    ldc: rank,
    transposeA: 0,
    transposeB: 0,
    alpha: scale,
    beta: 0,
  });
}

/** Columns start .. start + n of a matrix, and what each is multiplied by: scale / divisor, both (n). */
export interface ScaledColumns {
  start: number;
  scale: Tensor;
  /** Taken as a constant. */
  divisor?: Tensor | undefined;
}

/** x (N, C) with some columns scaled; the ranges do not overlap. Gradients go to x and the scales. */
export function scaleColumns(context: Context, x: Tensor, ranges: readonly ScaledColumns[]): Tensor {
  const { numRows, width } = x;
  const covered = ranges.reduce((total, { scale }) => total + scale.numElements, 0);
  const scaled = (from: Tensor, divisors: readonly (Tensor | undefined)[]): Tensor => {
    const to = context.empty(from.shape, from.dtype);
    if (covered < width) context.device.run("convert", { x: from, y: to, numElements: to.numElements });
    for (const [index, { start, scale }] of ranges.entries()) {
      context.device.run("scaleColumns", {
        x: from.at(start),
        scale,
        divisor: divisors[index],
        y: to.at(start),
        numRows,
        width: scale.numElements,
        xRowStride: width,
        yRowStride: width,
      });
    }
    return to;
  };
  const divided = ranges.flatMap(({ divisor }) => divisor ?? []);
  const y = scaled(
    x,
    ranges.map(({ divisor }) => divisor),
  );
  const scales = ranges.map(({ scale }) => scale);
  const keepsInput = scales.some(needsGradient);
  record(context, [y], {
    name: "scaleColumns",
    inputs: [x, ...scales],
    save: [...divided, ...(keepsInput ? [x] : [])],
    backward: ([dy], saved) => {
      if (dy === undefined) return [];
      let numSeen = 0;
      const divisors = ranges.map(({ divisor }) =>
        divisor === undefined ? undefined : saved[numSeen++].get(),
      );
      for (const [index, { start, scale }] of ranges.entries()) {
        if (!(scale instanceof Parameter) || !scale.isTrainable) continue;
        const { gradient, beta } = scale.gradientTarget();
        context.device.run("columnDot", {
          a: dy.at(start),
          b: saved[divided.length].get().at(start),
          divisor: divisors[index],
          y: gradient,
          numRows,
          width: scale.numElements,
          aRowStride: width,
          bRowStride: width,
          beta,
        });
      }
      return [x.variable === undefined ? undefined : scaled(dy, divisors)];
    },
  });
  return y;
}

/** Which random bits a dropout takes: the same give the same zeros. */
export interface DropoutOptions {
  probability: number;
  seed: number;
  /** First Philox block. */
  counter: number;
}

/** x with elements zeroed at random and the others scaled up (Srivastava et al., 2014); any shape. */
export function dropout(context: Context, x: Tensor, options: DropoutOptions): Tensor {
  const y = context.empty(x.shape, x.dtype);
  const { numElements } = x;
  context.device.run("dropout", { x, y, numElements, ...options });
  record(context, [y], {
    name: "dropout",
    inputs: [x],
    save: [],
    backward: ([dy]) => {
      if (dy === undefined) return [];
      const dx = reuse(context, dy);
      context.device.run("dropout", { x: dy, y: dx, numElements, ...options });
      return [dx];
    },
  });
  return y;
}

/** a * b by elements, of one shape and dtype. Throws ShapeError. */
export function multiply(context: Context, a: Tensor, b: Tensor): Tensor {
  if (a.numElements !== b.numElements)
    throw new ShapeError("multiply", `expected equal sizes, got ${a.numElements} and ${b.numElements}`);
  const y = context.empty(a.shape, a.dtype);
  const { numElements } = y;
  context.device.run("multiply", { a, b, y, numElements });
  record(context, [y], {
    name: "multiply",
    inputs: [a, b],
    save: [a, b],
    backward: ([dy], [savedA, savedB]) => {
      if (dy === undefined) return [];
      const times = (other: Tensor): Tensor => {
        const gradient = context.empty(a.shape, a.dtype);
        context.device.run("multiply", { a: dy, b: other, y: gradient, numElements });
        return gradient;
      };
      return [
        a.variable === undefined ? undefined : times(savedB.get()),
        b.variable === undefined ? undefined : times(savedA.get()),
      ];
    },
  });
  return y;
}

/**
 * Rows of the frozen `weight` (V, C) by token, and of `prompt` (P, C) for tokens V .. V + P - 1; tokens i32 (N) -> (N, C). Gradients go to
 * the prompt alone.
 */
export function promptEmbedding(
  context: Context,
  tokens: Tensor,
  { weight, prompt }: { weight: Tensor; prompt: Tensor },
): Tensor {
  const [vocabSize, width] = weight.shape;
  const promptLength = prompt.numRows;
  const numRows = tokens.numElements;
  const shape = { numRows, width, vocabSize, promptLength };
  const y = context.empty([numRows, width], weight.dtype);
  context.device.run("promptEmbeddingForward", { tokens, weight, prompt, y, ...shape });
  record(context, [y], {
    name: "promptEmbedding",
    inputs: [prompt],
    save: [tokens],
    backward: ([dy], [savedTokens]) => {
      if (dy === undefined) return [];
      const dprompt =
        prompt instanceof Parameter ? prompt.gradientSum() : context.full(prompt.shape, prompt.dtype, 0);
      context.device.run("promptEmbeddingBackward", { tokens: savedTokens.get(), dy, dprompt, ...shape });
      return [prompt instanceof Parameter ? undefined : dprompt];
    },
  });
  return y;
}
