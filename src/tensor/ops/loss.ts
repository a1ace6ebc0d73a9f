/**
 * The language-model head with its cross-entropy, in a few coarse chunks of rows: the logits of a chunk are made, turned
 * into their own gradient in place, and used up before the next chunk begins, so that a 256,000 vocabulary never needs the
 * logits of a whole batch (the manner of torchtitan's chunked loss and llm.c's in-place gradient).
 */
import { dtypeBytes, ShapeError } from "../../base/index.ts";
import type { Context } from "../context.ts";
import { Parameter } from "../parameter.ts";
import { needsGradient, record } from "../tape.ts";
import type { Tensor } from "../tensor.ts";
import { matmulInto } from "./linear.ts";

export interface LanguageModelLossOptions {
  /** Head weight, (V, C). */
  weight: Tensor;
  /** i32 (N) */
  targets: Tensor;
  /** Rows with this target count for nothing. */
  ignoreIndex?: number;
  /** Factor of every row's gradient: one over the number of counted tokens of the whole step. */
  gradientScale?: number;
  /** Memory for the logits of one chunk. */
  chunkBytes?: number;
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
  const { weight, targets, ignoreIndex = -1, gradientScale = 1, chunkBytes = defaultChunkBytes } = options;
  const [vocabSize, width] = weight.shape;
  const { numRows } = hidden;
  if (hidden.width !== width || targets.numElements !== numRows) {
    throw new ShapeError(
      "languageModelLoss",
      `expected hidden (N, ${width}) and N targets, got (${numRows}, ${hidden.width}) and ${targets.numElements}`,
    );
  }
  const isTraining = context.tape !== undefined && (needsGradient(hidden) || needsGradient(weight));
  const losses = context.empty([numRows], "f32");
  const dhidden =
    isTraining && needsGradient(hidden) ? context.empty([numRows, width], hidden.dtype) : undefined;
  const chunkRows = Math.max(
    1,
    Math.min(numRows, Math.floor(chunkBytes / (vocabSize * dtypeBytes(hidden.dtype)))),
  );
  const numChunks = Math.ceil(numRows / chunkRows);
  const rowsPerChunk = Math.ceil(numRows / Math.max(1, numChunks));

  context.scope(() => {
    const buffer = context.empty([rowsPerChunk, vocabSize], hidden.dtype);
    for (let begin = 0; begin < numRows; begin += rowsPerChunk) {
      const m = Math.min(rowsPerChunk, numRows - begin);
      const rows = hidden.at(begin * width);
      matmulInto(context, { a: rows, b: weight, c: buffer }, { m, n: vocabSize, k: width, transposeB: true });
      context.device.run("crossEntropy", {
        logits: buffer,
        targets: targets.at(begin),
        losses: losses.at(begin),
        numRows: m,
        vocabSize,
        ignoreIndex,
        writeGradient: Number(isTraining),
        gradientScale,
      });
      if (dhidden !== undefined) {
        matmulInto(
          context,
          { a: buffer, b: weight, c: dhidden.at(begin * width) },
          { m, n: width, k: vocabSize },
        );
      }
      if (isTraining && weight instanceof Parameter && weight.isTrainable) {
        const { gradient, beta } = weight.gradientTarget();
        matmulInto(
          context,
          { a: buffer, b: rows, c: gradient },
          { m: vocabSize, n: width, k: m, transposeA: true, beta },
        );
      }
    }
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
