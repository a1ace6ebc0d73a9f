/** Reference: cross-entropy with the logits turned into their gradient. */
import { read, write } from "./memory.ts";
import type { ReferenceKernels } from "./kernels.ts";

export const lossKernels = {
  crossEntropy: ({
    logits,
    targets,
    losses,
    numRows,
    vocabSize,
    ignoreIndex,
    writeGradient,
    gradientScale,
  }) => {
    const values = read(logits, numRows * vocabSize);
    const wanted = read(targets, numRows);
    const out = new Float64Array(numRows);
    for (let row = 0; row < numRows; row++) {
      const scores = values.subarray(row * vocabSize, (row + 1) * vocabSize);
      if (wanted[row] === ignoreIndex) {
        if (writeGradient === 1) scores.fill(0);
        continue;
      }
      const highest = scores.reduce((best, score) => Math.max(best, score), -Infinity);
      const total = scores.reduce((sum, score) => sum + Math.exp(score - highest), 0);
      const logSumExp = highest + Math.log(total);
      out[row] = logSumExp - scores[wanted[row]];
      if (writeGradient !== 1) continue;
      for (let i = 0; i < vocabSize; i++) {
        scores[i] = (Math.exp(scores[i] - logSumExp) - (i === wanted[row] ? 1 : 0)) * gradientScale;
      }
    }
    if (writeGradient === 1) write(logits, values);
    write(losses, out);
  },
} satisfies Partial<ReferenceKernels>;
