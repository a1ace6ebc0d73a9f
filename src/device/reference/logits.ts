/** Reference: what stands between the logits and the draw (biases, masks), and log-probabilities of given tokens by full sorting. */
import { invariant } from "../../base/index.ts";
import { logSumExp } from "./loss.ts";
import { read, write } from "./memory.ts";
import type { ReferenceKernels } from "./kernels.ts";

export const logitsKernels = {
  gatherTokens: ({ sources, drawn, known, tokens, numRows, numDrawn }) => {
    const places = read(sources, numRows);
    const available = read(drawn, numDrawn);
    const gathered = read(known, numRows);
    for (const [row, place] of places.entries()) {
      invariant(place < numDrawn, `place ${place} of ${numDrawn} drawn tokens`);
      if (place >= 0) gathered[row] = available[place];
    }
    write(tokens, gathered);
  },

  biasLogits: ({ logits, tokens, biases, entryLengths, numRows, vocabSize, maxEntries }) => {
    const lengths = read(entryLengths, numRows);
    for (let row = 0; row < numRows; row++) {
      const ids = read(tokens, lengths[row], row * maxEntries);
      const added = read(biases, lengths[row], row * maxEntries);
      for (const [i, token] of ids.entries()) {
        const [score] = read(logits, 1, row * vocabSize + token);
        write(logits, [score + added[i]], row * vocabSize + token);
      }
    }
  },

  maskLogits: ({ logits, rows, allowed, numMasks, vocabSize }) => {
    const numWords = Math.ceil(vocabSize / 32);
    const maskedRows = read(rows, numMasks);
    for (const [mask, row] of maskedRows.entries()) {
      const words = read(allowed, numWords, mask * numWords);
      const scores = read(logits, vocabSize, row * vocabSize);
      for (let token = 0; token < vocabSize; token++) {
        if (((words[token >> 5] >>> (token & 31)) & 1) === 0) scores[token] = -Infinity;
      }
      write(logits, scores, row * vocabSize);
    }
  },

  tokenLogprobs: (args) => {
    const { logits, tokens, logprobs, ranks, topTokens, topLogprobs, numRows, vocabSize, numTop } = args;
    const wanted = read(tokens, numRows);
    for (let row = 0; row < numRows; row++) {
      const scores = read(logits, vocabSize, row * vocabSize);
      const total = logSumExp(scores);
      const token = wanted[row];
      const order = Array.from(scores.keys()).sort((a, b) => scores[b] - scores[a] || a - b);
      write(logprobs, [scores[token] - total], row);
      write(ranks, [order.indexOf(token)], row);
      if (topTokens === undefined || topLogprobs === undefined) continue;
      for (let place = 0; place < numTop; place++) {
        const isThere = place < vocabSize;
        write(topTokens, [isThere ? order[place] : -1], row * numTop + place);
        write(topLogprobs, [isThere ? scores[order[place]] - total : -Infinity], row * numTop + place);
      }
    }
  },
} satisfies Partial<ReferenceKernels>;
