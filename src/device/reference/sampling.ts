/**
 * Reference: penalties and the draw of tokens, by full sorting. Cuts in the order of the table: top-k, top-p (nucleus sampling,
 * Holtzman et al., 2020) of what is left, min-p (Nguyen et al., 2024) of what is left.
 */
import { philox, uniformFromBits } from "../../base/index.ts";
import { logSumExp } from "./loss.ts";
import { read, write } from "./memory.ts";
import type { ReferenceKernels } from "./kernels.ts";

export interface DrawOptions {
  /** Of one row; see `sample` of the operator table. */
  temperature: number;
  topK: number;
  topP: number;
  minP: number;
  /** In [0, 1). */
  uniform: number;
}

/** The lowest logit that survives the cuts; all that reach it are kept. */
function keptThreshold(scores: Float64Array, { temperature, topK, topP, minP }: DrawOptions): number {
  const ascending = scores.toSorted();
  const numScores = ascending.length;
  const highest = ascending[numScores - 1];
  const weightOf = (score: number): number => Math.exp((score - highest) / temperature);
  let threshold = topK > 0 && topK < numScores ? ascending[numScores - topK] : -Infinity;
  if (topP > 0 && topP < 1) {
    let total = 0;
    for (const score of scores) if (score >= threshold) total += weightOf(score);
    let at = numScores - 1;
    let reached = weightOf(highest);
    while (reached < topP * total && at > 0 && ascending[at - 1] >= threshold) {
      at--;
      reached += weightOf(ascending[at]);
    }
    threshold = ascending[at];
  }
  if (minP > 0) {
    let at = numScores - 1;
    while (at > 0 && ascending[at - 1] >= threshold && weightOf(ascending[at - 1]) >= minP) at--;
    threshold = ascending[at];
  }
  return threshold;
}

/** The token that `sample` draws from one row of logits. */
export function drawToken(scores: Float64Array, options: DrawOptions): number {
  let best = 0;
  for (let token = 1; token < scores.length; token++) if (scores[token] > scores[best]) best = token;
  if (options.temperature === 0 || options.topK === 1) return best;
  const threshold = keptThreshold(scores, options);
  const weights = scores.map((score) =>
    score >= threshold ? Math.exp((score - scores[best]) / options.temperature) : 0,
  );
  let total = 0;
  for (const weight of weights) total += weight;
  let reached = 0;
  let last = best;
  for (let token = 0; token < weights.length; token++) {
    if (weights[token] === 0) continue;
    reached += weights[token];
    last = token;
    if (reached > options.uniform * total) break;
  }
  return last;
}

export const samplingKernels = {
  applyPenalties: (args) => {
    const { logits, history, numRows, vocabSize, maxHistory } = args;
    const lengths = read(args.historyLengths, numRows);
    const repetitions = read(args.repetition, numRows);
    const presences = read(args.presence, numRows);
    const frequencies = read(args.frequency, numRows);
    for (let row = 0; row < numRows; row++) {
      const counts = new Map<number, number>();
      for (const token of read(history, lengths[row], row * maxHistory)) {
        counts.set(token, (counts.get(token) ?? 0) + 1);
      }
      const scores = read(logits, vocabSize, row * vocabSize);
      for (const [token, count] of counts) {
        const score = scores[token];
        const scaled = score > 0 ? score / repetitions[row] : score * repetitions[row];
        scores[token] = scaled - (presences[row] + frequencies[row] * count);
      }
      write(logits, scores, row * vocabSize);
    }
  },

  sample: (args) => {
    const { logits, numRows, vocabSize } = args;
    const temperatures = read(args.temperature, numRows);
    const topKs = read(args.topK, numRows);
    const topPs = read(args.topP, numRows);
    const minPs = read(args.minP, numRows);
    const seeds = read(args.seeds, numRows);
    const counters = read(args.counters, numRows);
    const drawn = new Float64Array(numRows);
    const logs = new Float64Array(numRows);
    for (let row = 0; row < numRows; row++) {
      const scores = read(logits, vocabSize, row * vocabSize);
      drawn[row] = drawToken(scores, {
        temperature: temperatures[row],
        topK: topKs[row],
        topP: topPs[row],
        minP: minPs[row],
        uniform: uniformFromBits(philox(seeds[row], counters[row])[0]),
      });
      logs[row] = scores[drawn[row]] - logSumExp(scores);
    }
    write(args.tokens, drawn);
    write(args.logprobs, logs);
  },
} satisfies Partial<ReferenceKernels>;
