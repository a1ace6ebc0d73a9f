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
  const descending = scores.toSorted().toReversed();
  const weightOf = (score: number): number => Math.exp((score - descending[0]) / temperature);
  let threshold = topK > 0 && topK < descending.length ? descending[topK - 1] : -Infinity;
  if (topP > 0 && topP < 1) {
    const kept = descending.filter((score) => score >= threshold);
    let total = 0;
    for (const score of kept) total += weightOf(score);
    let reached = 0;
    threshold = kept.find((score) => (reached += weightOf(score)) >= topP * total) ?? threshold;
  }
  if (minP > 0) {
    const isKept = (score: number): boolean => score >= threshold && weightOf(score) >= minP;
    threshold = descending.findLast(isKept) ?? descending[0];
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
