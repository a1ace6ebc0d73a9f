/**
 * The language-model head with its cross-entropy, in a few coarse chunks of rows: the logits of a chunk are made, turned
 * into their own gradient in place, and used up before the next chunk begins, so that a 256,000 vocabulary never needs the
 * logits of a whole batch (the manner of torchtitan's chunked loss and llm.c's in-place gradient).
 */
import { dtypeBytes, ShapeError } from "../../base/index.ts";
import type { Context } from "../context.ts";
import { Parameter } from "../parameter.ts";
import { needsGradient, record, reuse } from "../tape.ts";
import type { Tensor } from "../tensor.ts";
import { matmulInto } from "./linear.ts";

export interface TokenLossOptions {
  /** Head weight, (V, C). */
  weight: Tensor;
  /** i32 (N) */
  targets: Tensor;
  /** Rows with this target count for nothing. */
  ignoreIndex?: number;
  /** Memory for the logits of one chunk. */
  chunkBytes?: number;
}

export interface LanguageModelLossOptions extends TokenLossOptions {
  /** Factor of every row's gradient: one over the number of counted tokens of the whole step. */
  gradientScale?: number;
}

const defaultChunkBytes = 64 * 2 ** 20;

/**
 * hidden (N, C) -> losses f32 (N), natural log, 0 for ignored rows. On a tape, the gradient of gradientScale * sum(losses) is taken at
 * once; the tape's backward pass only hands it on. Throws ShapeError.
 */
export function languageModelLoss(
  context: Context,
  hidden: Tensor,
  options: LanguageModelLossOptions,
): Tensor {
  const { weight, gradientScale = 1 } = options;
  checkShapes("languageModelLoss", hidden, options);
  const isTraining = context.tape !== undefined && (needsGradient(hidden) || needsGradient(weight));
  const losses = context.empty([hidden.numRows], "f32");
  const dhidden = isTraining && needsGradient(hidden) ? context.empty(hidden.shape, hidden.dtype) : undefined;
  runChunks(context, hidden, {
    ...options,
    losses,
    gradient: isTraining ? { gradientScale, rowScales: undefined, dhidden } : undefined,
  });
  if (dhidden !== undefined) {
    record(context, [], {
      name: "languageModelLoss",
      inputs: [hidden],
      save: [dhidden],
      backward: (_, [saved]) => [saved.get()],
    });
  }
  return losses;
}

/**
 * As `languageModelLoss`, for objectives whose factor of each row's gradient follows from the losses themselves (preferences): the tape's
 * backward pass is seeded with the gradient f32 (N) of the losses. Under a frozen head each row's own gradient is made with its loss, and only
 * scaled by its factor then; the gradient of a trained head needs the logits a second time. Throws ShapeError.
 */
export function tokenLosses(context: Context, hidden: Tensor, options: TokenLossOptions): Tensor {
  checkShapes("tokenLosses", hidden, options);
  const isTraining = context.tape !== undefined && needsGradient(hidden);
  return isTraining && !needsGradient(options.weight)
    ? lossesOfFrozenHead(context, hidden, options)
    : lossesOfTrainedHead(context, hidden, options);
}

function lossesOfFrozenHead(context: Context, hidden: Tensor, options: TokenLossOptions): Tensor {
  const losses = context.empty([hidden.numRows], "f32");
  const dhidden = context.empty(hidden.shape, hidden.dtype);
  runChunks(context, hidden, {
    ...options,
    losses,
    gradient: { gradientScale: 1, rowScales: undefined, dhidden },
  });
  record(context, [losses], {
    name: "tokenLosses",
    inputs: [hidden],
    save: [dhidden],
    backward: ([rowScales], [saved]) => {
      if (rowScales === undefined) return [];
      const x = saved.get();
      const y = reuse(context, x);
      context.device.run("scaleRows", { x, rowScales, y, numRows: x.numRows, width: x.width });
      return [y];
    },
  });
  return losses;
}

function lossesOfTrainedHead(context: Context, hidden: Tensor, options: TokenLossOptions): Tensor {
  const { weight, targets } = options;
  const losses = context.empty([hidden.numRows], "f32");
  runChunks(context, hidden, { ...options, losses, gradient: undefined });
  record(context, [losses], {
    name: "tokenLosses",
    inputs: [hidden, weight],
    save: [hidden, targets, weight],
    backward: ([rowScales], [savedHidden, savedTargets, savedWeight]) => {
      if (rowScales === undefined) return [];
      const again = savedHidden.get();
      const dhidden = hidden.variable === undefined ? undefined : context.empty(hidden.shape, hidden.dtype);
      runChunks(context, again, {
        ...options,
        weight: weight instanceof Parameter ? weight : savedWeight.get(),
        targets: savedTargets.get(),
        losses: context.empty([hidden.numRows], "f32"),
        gradient: { gradientScale: 1, rowScales, dhidden },
      });
      return [dhidden];
    },
  });
  return losses;
}

function checkShapes(component: string, hidden: Tensor, { weight, targets }: TokenLossOptions): void {
  const { width } = weight;
  const { numRows } = hidden;
  if (hidden.width === width && targets.numElements === numRows) return;
  throw new ShapeError(
    component,
    `expected hidden (N, ${width}) and N targets, got (${numRows}, ${hidden.width}) and ${targets.numElements}`,
  );
}

interface ChunkOptions extends TokenLossOptions {
  losses: Tensor;
  /** Absent where only the losses are wanted. */
  gradient: { gradientScale: number; rowScales: Tensor | undefined; dhidden: Tensor | undefined } | undefined;
}

function runChunks(context: Context, hidden: Tensor, options: ChunkOptions): void {
  const { weight, targets, ignoreIndex = -1, chunkBytes = defaultChunkBytes, losses, gradient } = options;
  const [vocabSize, width] = weight.shape;
  const { numRows } = hidden;
  const rowBytes = vocabSize * dtypeBytes(hidden.dtype);
  const chunkRows = Math.max(1, Math.min(numRows, Math.floor(chunkBytes / rowBytes)));
  const rowsPerChunk = Math.ceil(numRows / Math.max(1, Math.ceil(numRows / chunkRows)));
  context.scope(() => {
    const buffer = context.empty([rowsPerChunk, vocabSize], hidden.dtype);
    for (let begin = 0; begin < numRows; begin += rowsPerChunk) {
      const m = Math.min(rowsPerChunk, numRows - begin);
      const rows = hidden.at(begin * width);
      matmulInto(context, { a: rows, b: weight, c: buffer }, { m, n: vocabSize, k: width, transposeB: true });
      context.device.run("crossEntropy", {
        logits: buffer,
        targets: targets.at(begin),
        rowScales: gradient?.rowScales?.at(begin),
        losses: losses.at(begin),
        numRows: m,
        vocabSize,
        ignoreIndex,
        writeGradient: Number(gradient !== undefined),
        gradientScale: gradient?.gradientScale ?? 1,
      });
      if (gradient === undefined) continue;
      if (gradient.dhidden !== undefined) {
        const operands = { a: buffer, b: weight, c: gradient.dhidden.at(begin * width) };
        matmulInto(context, operands, { m, n: width, k: vocabSize });
      }
      if (weight instanceof Parameter && weight.isTrainable) {
        const { gradient: dweight, beta } = weight.gradientTarget();
        const operands = { a: buffer, b: rows, c: dweight };
        matmulInto(context, operands, { m: vocabSize, n: width, k: m, transposeA: true, beta });
      }
    }
  });
}
