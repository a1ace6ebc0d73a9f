/** Reference: cross-entropy, with each row of logits turned into its gradient where that is wanted. */
import { invariant } from "../../base/index.ts";
import { read, write } from "./memory.ts";
import type { ReferenceKernels } from "./kernels.ts";

/** The natural log of the sum of the exponentials. */
export function logSumExp(scores: Float64Array): number {
  let highest = -Infinity;
  for (const score of scores) highest = Math.max(highest, score);
  let total = 0;
  for (const score of scores) total += Math.exp(score - highest);
  return highest + Math.log(total);
}

export const lossKernels = {
  crossEntropy: (args) => {
    const { logits, targets, rowScales, losses, numRows, vocabSize, ignoreIndex } = args;
    const isWriting = args.writeGradient === 1;
    const wanted = read(targets, numRows);
    const scales = rowScales && read(rowScales, numRows);
    const out = new Float64Array(numRows);
    // Row by row: a large vocabulary in float64 is much memory.
    for (let row = 0; row < numRows; row++) {
      const target = wanted[row];
      if (target === ignoreIndex) {
        if (isWriting) write(logits, new Float64Array(vocabSize), row * vocabSize);
        continue;
      }
      invariant(target >= 0 && target < vocabSize, `target ${target} of a vocabulary of ${vocabSize}`);
      const scores = read(logits, vocabSize, row * vocabSize);
      const total = logSumExp(scores);
      out[row] = total - scores[target];
      if (!isWriting) continue;
      const gradientScale = args.gradientScale * (scales?.[row] ?? 1);
      for (let i = 0; i < vocabSize; i++) scores[i] = Math.exp(scores[i] - total) * gradientScale;
      scores[target] -= gradientScale;
      write(logits, scores, row * vocabSize);
    }
    write(losses, out);
  },
} satisfies Partial<ReferenceKernels>;
