/** Reference: penalties and the draw of tokens, by full sorting. */
import { philox, uniformFromBits } from "../../base/index.ts";
import { read, write } from "./memory.ts";
import type { ReferenceKernels } from "./kernels.ts";

/** Log of the sum of exponentials. */
function logSumExp(scores: Float64Array): number {
  const highest = scores.reduce((best, score) => Math.max(best, score), -Infinity);
  return highest + Math.log(scores.reduce((sum, score) => sum + Math.exp(score - highest), 0));
}

interface DrawOptions {
  temperature: number;
  topK: number;
  topP: number;
  minP: number;
  uniform: number;
}

/** The lowest logit that survives the cuts; all that reach it are kept. */
function keptThreshold(scores: Float64Array, { temperature, topK, topP, minP }: DrawOptions): number {
  const sorted = scores.toSorted((a, b) => b - a);
  const highest = sorted[0];
  let threshold = topK > 0 && topK < sorted.length ? sorted[topK - 1] : -Infinity;
  const weightOf = (score: number): number => Math.exp((score - highest) / temperature);
  if (topP > 0 && topP < 1) {
    const candidates = sorted.filter((score) => score >= threshold);
    const total = candidates.reduce((sum, score) => sum + weightOf(score), 0);
    let reached = 0;
    for (const score of candidates) {
      reached += weightOf(score);
      if (reached >= topP * total) {
        threshold = Math.max(threshold, score);
        break;
      }
    }
  }
  if (minP > 0) {
    const lowest = sorted.filter((score) => score >= threshold && weightOf(score) >= minP).at(-1);
    threshold = Math.max(threshold, lowest ?? highest);
  }
  return threshold;
}

function draw(scores: Float64Array, options: DrawOptions): number {
  const highest = scores.reduce((best, score) => Math.max(best, score), -Infinity);
  if (options.temperature === 0 || options.topK === 1) return scores.indexOf(highest);
  const threshold = keptThreshold(scores, options);
  const weights = scores.map((score) =>
    score >= threshold ? Math.exp((score - highest) / options.temperature) : 0,
  );
  const target = options.uniform * weights.reduce((sum, weight) => sum + weight, 0);
  let reached = 0;
  let last = 0;
  for (const [token, weight] of weights.entries()) {
    if (weight === 0) continue;
    reached += weight;
    last = token;
    if (reached > target) return token;
  }
  return last;
}

export const samplingKernels = {
  applyPenalties: (args) => {
    const {
      logits,
      history,
      historyLengths,
      repetition,
      presence,
      frequency,
      numRows,
      vocabSize,
      maxHistory,
    } = args;
    const scores = read(logits, numRows * vocabSize);
    const tokens = read(history, numRows * maxHistory);
    const lengths = read(historyLengths, numRows);
    const factors = read(repetition, numRows);
    const presences = read(presence, numRows);
    const frequencies = read(frequency, numRows);
    for (let row = 0; row < numRows; row++) {
      const counts = new Map<number, number>();
      for (let i = 0; i < lengths[row]; i++) {
        const token = tokens[row * maxHistory + i];
        counts.set(token, (counts.get(token) ?? 0) + 1);
      }
      for (const [token, count] of counts) {
        const score = scores[row * vocabSize + token];
        const scaled = score > 0 ? score / factors[row] : score * factors[row];
        scores[row * vocabSize + token] = scaled - (presences[row] + frequencies[row] * count);
      }
    }
    write(logits, scores);
  },

  sample: ({
    logits,
    temperature,
    topK,
    topP,
    minP,
    seeds,
    counters,
    tokens,
    logprobs,
    numRows,
    vocabSize,
  }) => {
    const scores = read(logits, numRows * vocabSize);
    const [temperatures, topKs, topPs, minPs, seedOf, counterOf] = [
      temperature,
      topK,
      topP,
      minP,
      seeds,
      counters,
    ].map((tensor) => read(tensor, numRows));
    const drawn = new Float64Array(numRows);
    const logs = new Float64Array(numRows);
    for (let row = 0; row < numRows; row++) {
      const own = scores.subarray(row * vocabSize, (row + 1) * vocabSize);
      const uniform = uniformFromBits(philox(seedOf[row], counterOf[row])[0]);
      drawn[row] = draw(own, {
        temperature: temperatures[row],
        topK: topKs[row],
        topP: topPs[row],
        minP: minPs[row],
        uniform,
      });
      logs[row] = own[drawn[row]] - logSumExp(own);
    }
    write(tokens, drawn);
    write(logprobs, logs);
  },
} satisfies Partial<ReferenceKernels>;
