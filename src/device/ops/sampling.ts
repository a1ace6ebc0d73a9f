/** From logits to tokens. Conventions: ../ops.ts. */
import type { OpSpec } from "./spec.ts";

export const samplingOps = {
  applyPenalties: {
    summary:
      "For each token t that occurs n > 0 times in history[row, 0 .. historyLengths[row]]: logit = logit > 0 ? logit / repetition : logit * repetition, then " +
      "logit -= presence + frequency * n. logits f32 (B, V); history i32 (B, maxHistory); historyLengths i32 (B); repetition, presence, frequency f32 (B).",
    tensors: {
      logits: "update",
      history: "read",
      historyLengths: "read",
      repetition: "read",
      presence: "read",
      frequency: "read",
    },
    integers: ["numRows", "vocabSize", "maxHistory"],
    floats: [],
  },
  sample: {
    summary:
      "Draws tokens[row] from logits[row] / temperature, keeping the topK highest (0 = all), of those the fewest highest whose probability reaches topP (>= 1 or <= 0 = all; " +
      "probability renormalised after topK), of those the ones with at least minP times the highest probability; ties with the last kept logit are all kept. The draw walks the kept tokens " +
      "in token order with u = philox(seed, counter)[0] as a uniform number. temperature 0 or topK 1 takes the highest logit (the first of equals). " +
      "logprobs[row] = log softmax of the unscaled logits at the drawn token. logits f32 (B, V); temperature, topP, minP f32 (B); topK i32 (B); seeds, counters i64 (B); " +
      "tokens i32 (B); logprobs f32 (B).",
    tensors: {
      logits: "read",
      temperature: "read",
      topK: "read",
      topP: "read",
      minP: "read",
      seeds: "read",
      counters: "read",
      tokens: "write",
      logprobs: "write",
    },
    integers: ["numRows", "vocabSize"],
    floats: [],
  },
  gatherTokens: {
    summary:
      "tokens[row] = drawn[sources[row]] where sources[row] >= 0, known[row] elsewhere. All i32: tokens, sources, known (N), drawn (numDrawn).",
    tensors: { sources: "read", drawn: "read", known: "read", tokens: "write" },
    integers: ["numRows", "numDrawn"],
    floats: [],
  },
  biasLogits: {
    summary:
      "logits[row, tokens[row, i]] += biases[row, i] for i < entryLengths[row]; the tokens of a row differ from each other. logits f32 (B, V); " +
      "tokens i32, biases f32 (B, maxEntries); entryLengths i32 (B).",
    tensors: { logits: "update", tokens: "read", biases: "read", entryLengths: "read" },
    integers: ["numRows", "vocabSize", "maxEntries"],
    floats: [],
  },
  maskLogits: {
    summary:
      "logits[rows[m], t] = -Infinity where bit t mod 32 of allowed[m, floor(t / 32)] is 0, for m < numMasks; the rows differ from each other. " +
      "logits f32 (B, V); rows i32 (numMasks); allowed i32 (numMasks, ceil(V / 32)).",
    tensors: { logits: "update", rows: "read", allowed: "read" },
    integers: ["numMasks", "vocabSize"],
    floats: [],
  },
  tokenLogprobs: {
    summary:
      "logprobs[row] = logits[row, tokens[row]] - logSumExp(logits[row]); ranks[row] = how many tokens have a higher logit, or an equal one and a lower number. " +
      "topTokens[row, i], topLogprobs[row, i]: the token of rank i and its log-probability, i < numTop <= 128 (numTop = 0: both null; beyond V: -1 and -Infinity). " +
      "logits f32 (B, V); tokens, ranks i32 (B); logprobs f32 (B); topTokens i32, topLogprobs f32 (B, numTop).",
    tensors: {
      logits: "read",
      tokens: "read",
      logprobs: "write",
      ranks: "write",
      topTokens: "write?",
      topLogprobs: "write?",
    },
    integers: ["numRows", "vocabSize", "numTop"],
    floats: [],
  },
} as const satisfies Record<string, OpSpec>;
