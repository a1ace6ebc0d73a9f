/**
 * The operator table: one row per native entry point. Argument types, packing, the C header, the reference's total map and
 * docs/ops.md follow from it, so that a missing rule does not compile.
 *
 * Conventions for every row: tensors are row-major and contiguous unless a `…RowStride` (in elements) says otherwise;
 * `read` tensors are never written; `write` tensors are assigned and may hold anything before; `update` tensors are read
 * and written; `?` marks a tensor that may be null. Float tensors are f32 or bf16 where not said otherwise, arithmetic is at
 * least f32, and a result is rounded once, to nearest even, when it is stored. Booleans are integers 0 or 1.
 * Every operator is deterministic for a given device, thread count and build. Empty tensors (zero rows) are valid.
 */

export type TensorAccess = "read" | "write" | "update" | "read?" | "write?" | "update?";

export interface OpSpec {
  /** The definition, with shapes. */
  readonly summary: string;
  readonly tensors: Readonly<Record<string, TensorAccess>>;
  /** Whole-number arguments, each below 2^53. */
  readonly integers: readonly string[];
  readonly floats: readonly string[];
}

export const ops = {
  // ---- elementwise -------------------------------------------------------------------------------------------------
  fill: {
    summary: "y[i] = value. Any dtype.",
    tensors: { y: "write" },
    integers: ["numElements"],
    floats: ["value"],
  },
  convert: {
    summary: "y[i] = x[i] in y's dtype (f32, bf16, f16, f64 in any combination; equal dtypes copy).",
    tensors: { x: "read", y: "write" },
    integers: ["numElements"],
    floats: [],
  },
  add: {
    summary: "y[i] = a[i] + b[i]; y may be a or b.",
    tensors: { a: "read", b: "read", y: "write" },
    integers: ["numElements"],
    floats: [],
  },
  axpby: {
    summary: "y[i] = alpha * x[i] + beta * y[i]; with beta = 0, y is not read.",
    tensors: { x: "read", y: "update" },
    integers: ["numElements"],
    floats: ["alpha", "beta"],
  },
  randomNormal: {
    summary:
      "y[i] = mean + std * z[i]. Philox 4x32-10 block (seed, counter + floor(i / 4)) gives four words b; pair p = (i mod 4) >> 1: " +
      "u = (b[2p] >> 8) * 2^-24, w = (b[2p + 1] >> 8) * 2^-24, radius = sqrt(-2 ln(1 - u)), z = radius * cos(2 pi w) for even i, sin for odd.",
    tensors: { y: "write" },
    integers: ["numElements", "seed", "counter"],
    floats: ["mean", "std"],
  },
  sum: {
    summary: "accumulator[0] += sum of x[i]; accumulator is f64 (1).",
    tensors: { x: "read", accumulator: "update" },
    integers: ["numElements"],
    floats: [],
  },
  columnSum: {
    summary: "y[c] = beta * y[c] + sum over rows of x[row, c]; x (N, C), y (C).",
    tensors: { x: "read", y: "update" },
    integers: ["numRows", "width"],
    floats: ["beta"],
  },

  // ---- embedding ---------------------------------------------------------------------------------------------------
  embeddingForward: {
    summary:
      "y[row] = weight[tokens[row]]; tokens i32 (N), weight (V, C), y (N, C). Also gathers rows of any matrix.",
    tensors: { tokens: "read", weight: "read", y: "write" },
    integers: ["numRows", "width", "vocabSize"],
    floats: [],
  },
  embeddingBackward: {
    summary:
      "dweight[tokens[row]] += dy[row], summed per token in f32 before the one rounding to dweight's dtype.",
    tensors: { tokens: "read", dy: "read", dweight: "update" },
    integers: ["numRows", "width", "vocabSize"],
    floats: [],
  },

  // ---- matrix products ---------------------------------------------------------------------------------------------
  matmul: {
    summary:
      "c = alpha * op(a) op(b) + beta * c + bias; op(a) (m, k), op(b) (k, n), c (m, n), bias (n). transposeA: a is stored (k, m); " +
      "transposeB: b is stored (n, k). lda, ldb, ldc are row strides in elements. a and b share a dtype; c may be f32 beside bf16. " +
      "With beta = 0, c is not read. k = 0 gives beta * c + bias.",
    tensors: { a: "read", b: "read", c: "update", bias: "read?" },
    integers: ["m", "n", "k", "lda", "ldb", "ldc", "transposeA", "transposeB"],
    floats: ["alpha", "beta"],
  },

  // ---- quantised weights -------------------------------------------------------------------------------------------
  quantise: {
    summary:
      "Codes and scales of x (N, C), format 0 int8, 1 NF4, 2 int4, in groups of groupSize elements within a row (a multiple of 32, or at least C). " +
      "All arithmetic in f32, each step rounded. peak: the group's largest magnitude. int8: scale = peak / 127, code = x * (127 / peak) to nearest even. " +
      "NF4 (QLoRA, Dettmers et al. 2023): scale = peak, code = index of the value of the table nearest to x * (1 / peak), a tie to the lower one. " +
      "int4: scale = v / -8 for the first v of magnitude peak, code = 8 + x * (1 / scale) to nearest even, at most 15. " +
      "An empty or all-zero group has scale 0 and codes of value 0. codes u8: int8 (N, C) in two's complement; else (N, ceil(C / 2)), the first of two in the high half, " +
      "0 after an odd end. scales f32 (N, ceil(C / groupSize)).",
    tensors: { x: "read", codes: "write", scales: "write" },
    integers: ["numRows", "width", "groupSize", "format"],
    floats: [],
  },
  dequantise: {
    summary:
      "y = value of the code times the group's scale; y (N, C), layout and format as quantise: int8 the code, NF4 its table's entry, int4 the code minus 8. " +
      "The scale of group g, counted over all rows: scales[g], or where scales is null (double quantisation) scaleTable[scaleCodes[g]] * scaleScales[floor(g / 256)] + scaleOffset; " +
      "scaleCodes u8, scaleTable f32 (256), scaleScales f32.",
    tensors: {
      codes: "read",
      scales: "read?",
      scaleCodes: "read?",
      scaleTable: "read?",
      scaleScales: "read?",
      y: "write",
    },
    integers: ["numRows", "width", "groupSize", "format"],
    floats: ["scaleOffset"],
  },
  matmulQuantised: {
    summary:
      "y = x w^T + bias, w (n, k) as dequantise would give it in f32, read from its codes: for a few rows of x, as decoding has them. " +
      "x (m, k), y (m, n), bias (n).",
    tensors: {
      x: "read",
      codes: "read",
      scales: "read?",
      scaleCodes: "read?",
      scaleTable: "read?",
      scaleScales: "read?",
      bias: "read?",
      y: "write",
    },
    integers: ["m", "n", "k", "groupSize", "format"],
    floats: ["scaleOffset"],
  },

  // ---- adapters ----------------------------------------------------------------------------------------------------
  adapterLinear: {
    summary:
      "y[row] += scales[s] * (x[row] a[s]^T) b[s]^T with s = slots[row]; a negative slot leaves its row as it is. x (N, C) and y (N, F) have row strides; " +
      "a (numSlots, R, C), b (numSlots, F, R), of x's dtype; scales f32 (numSlots); slots i32 (N), in any order. x[row] a[s]^T stays in f32.",
    tensors: { x: "read", a: "read", b: "read", scales: "read", slots: "read", y: "update" },
    integers: ["numRows", "widthIn", "widthOut", "rank", "numSlots", "xRowStride", "yRowStride"],
    floats: [],
  },

  // ---- normalisation -----------------------------------------------------------------------------------------------
  layerNormForward: {
    summary:
      "s = x + addend (x alone where addend is null; rounded to sum's dtype first when sum is given and stored there); mean and variance of s over its row in two " +
      "passes; y = (s - mean) * rstd * (gain + gainOffset) + bias, rstd = 1 / sqrt(variance + eps). x, addend, sum, y (N, C); gain, bias (C); " +
      "mean, rstd f32 (N). y may be x.",
    tensors: {
      x: "read",
      addend: "read?",
      gain: "read",
      bias: "read?",
      sum: "write?",
      y: "write",
      mean: "write?",
      rstd: "write?",
    },
    integers: ["numRows", "width"],
    floats: ["eps", "gainOffset"],
  },
  layerNormBackward: {
    summary:
      "dx = gradient of layerNormForward with respect to s, plus dsum where given; dgain[c] += sum dy * (s - mean) * rstd; " +
      "dbias[c] += sum dy. x is s of the forward pass. dx may be dy or dsum.",
    tensors: {
      dy: "read",
      x: "read",
      gain: "read",
      mean: "read",
      rstd: "read",
      dsum: "read?",
      dx: "write",
      dgain: "update?",
      dbias: "update?",
    },
    integers: ["numRows", "width"],
    floats: ["gainOffset"],
  },
  rmsNormForward: {
    summary:
      "As layerNormForward without mean and bias: y = s * rstd * (gain + gainOffset), rstd = 1 / sqrt(mean of s^2 + eps).",
    tensors: { x: "read", addend: "read?", gain: "read", sum: "write?", y: "write", rstd: "write?" },
    integers: ["numRows", "width"],
    floats: ["eps", "gainOffset"],
  },
  rmsNormBackward: {
    summary:
      "dx = gradient of rmsNormForward with respect to s, plus dsum where given; dgain[c] += sum dy * s * rstd.",
    tensors: {
      dy: "read",
      x: "read",
      gain: "read",
      rstd: "read",
      dsum: "read?",
      dx: "write",
      dgain: "update?",
    },
    integers: ["numRows", "width"],
    floats: ["gainOffset"],
  },

  // ---- attention ---------------------------------------------------------------------------------------------------
  rotary: {
    summary:
      "Rotates the first rotaryDim components of each head by its row's position: pair (i, i + rotaryDim / 2) is turned by the angle whose " +
      "cosine and sine stand in cosSin[position, i] and cosSin[position, rotaryDim / 2 + i]; inverse = 1 turns back. The other components are copied. " +
      "x, y: row r, head h starts at r * rowStride + h * headDim; positions i32 (N); cosSin f32 (maxPositions, rotaryDim). y may be x.",
    tensors: { x: "read", positions: "read", cosSin: "read", y: "write" },
    integers: ["numRows", "numHeads", "headDim", "rotaryDim", "xRowStride", "yRowStride", "inverse"],
    floats: [],
  },
  attentionForward: {
    summary:
      "o = softmax(scale * q k^T) v per head, in memory linear in the lengths. q (rows, H, D), k, v (rows, G, D), head h uses key/value head " +
      "floor(h * G / H). cuSeqLens null: numSequences sequences, each of queryLength query rows and keyLength key rows; causal: query t sees keys " +
      "s <= t + keyLength - queryLength. cuSeqLens i32 (numSequences + 1): sequence i is rows cuSeqLens[i] .. cuSeqLens[i + 1] of q, k and v alike and " +
      "queryLength = keyLength is the longest. logSumExp f32 (H, total query rows), natural log of the sum of exp(scale * score).",
    tensors: { q: "read", k: "read", v: "read", cuSeqLens: "read?", o: "write", logSumExp: "write?" },
    integers: [
      "numSequences",
      "queryLength",
      "keyLength",
      "numRows",
      "numHeads",
      "numKvHeads",
      "headDim",
      "qRowStride",
      "kRowStride",
      "vRowStride",
      "oRowStride",
      "causal",
    ],
    floats: ["scale"],
  },
  attentionBackward: {
    summary:
      "Gradients of attentionForward: dq, dk, dv (assigned) from doutput (the gradient of o, with o's row stride), and q, k, v, o, logSumExp of the forward pass. " +
      "dq, dk, dv have the row strides of q, k, v. Gradients of grouped heads are summed over the group.",
    tensors: {
      q: "read",
      k: "read",
      v: "read",
      o: "read",
      doutput: "read",
      logSumExp: "read",
      cuSeqLens: "read?",
      dq: "write",
      dk: "write",
      dv: "write",
    },
    integers: [
      "numSequences",
      "queryLength",
      "keyLength",
      "numRows",
      "numHeads",
      "numKvHeads",
      "headDim",
      "qRowStride",
      "kRowStride",
      "vRowStride",
      "oRowStride",
      "causal",
    ],
    floats: ["scale"],
  },
  kvCacheWrite: {
    summary:
      "kCache[slots[row]] = k[row], vCache[slots[row]] = v[row]; a negative slot skips its row. k, v: row r starts at r * rowStride, (G, D) values; " +
      "caches (numSlots, G, D); slots i32 (N), a slot is block * blockSize + offset.",
    tensors: { k: "read", v: "read", slots: "read", kCache: "update", vCache: "update" },
    integers: ["numRows", "numKvHeads", "headDim", "kRowStride", "vRowStride"],
    floats: [],
  },
  attentionPaged: {
    summary:
      "Causal attention over a paged cache. Sequence i owns query rows queryStarts[i] .. queryStarts[i + 1] (i32, numSequences + 1), which are the last " +
      "positions of its context of contextLengths[i] tokens (i32); token s of it lies in slot blockTables[i, floor(s / blockSize)] * blockSize + s mod blockSize. " +
      "q, o (rows, H, D); caches (numSlots, G, D); blockTables i32 (numSequences, maxBlocksPerSequence). maxQueryLength bounds the query rows of any sequence.",
    tensors: {
      q: "read",
      kCache: "read",
      vCache: "read",
      blockTables: "read",
      contextLengths: "read",
      queryStarts: "read",
      o: "write",
    },
    integers: [
      "numSequences",
      "maxQueryLength",
      "numHeads",
      "numKvHeads",
      "headDim",
      "blockSize",
      "maxBlocksPerSequence",
      "qRowStride",
      "oRowStride",
    ],
    floats: ["scale"],
  },

  // ---- activations -------------------------------------------------------------------------------------------------
  activationForward: {
    summary:
      "y[i] = f(x[i]); kind: 0 squared ReLU, 1 GELU (tanh form), 2 SiLU, 3 GELU (erf), 4 ReLU, 5 sigmoid, 6 tanh. y may be x.",
    tensors: { x: "read", y: "write" },
    integers: ["numElements", "kind"],
    floats: [],
  },
  activationBackward: {
    summary: "dx[i] = dy[i] * f'(x[i]); kinds as activationForward. dx may be dy.",
    tensors: { x: "read", dy: "read", dx: "write" },
    integers: ["numElements", "kind"],
    floats: [],
  },
  gatedActivationForward: {
    summary:
      "y[row, i] = f(x[row, i]) * x[row, width + i]; x (N, 2F), y (N, F), width = F; kinds as activationForward (2 makes SwiGLU).",
    tensors: { x: "read", y: "write" },
    integers: ["numRows", "width", "kind"],
    floats: [],
  },
  gatedActivationBackward: {
    summary: "dx (N, 2F) from dy (N, F) and x (N, 2F); dx may be x.",
    tensors: { x: "read", dy: "read", dx: "write" },
    integers: ["numRows", "width", "kind"],
    floats: [],
  },

  // ---- loss --------------------------------------------------------------------------------------------------------
  crossEntropy: {
    summary:
      "losses[row] = logSumExp(logits[row]) - logits[row, targets[row]], 0 where targets[row] is ignoreIndex. writeGradient = 1 replaces logits[row] by " +
      "(softmax - onehot) * gradientScale * rowScales[row] (1 where rowScales is null), zeros for ignored rows. logits (N, V); targets i32 (N); " +
      "rowScales, losses f32 (N).",
    tensors: { logits: "update", targets: "read", rowScales: "read?", losses: "write" },
    integers: ["numRows", "vocabSize", "ignoreIndex", "writeGradient"],
    floats: ["gradientScale"],
  },

  // ---- adapters ----------------------------------------------------------------------------------------------------
  dropout: {
    summary:
      "y[i] = x[i] / (1 - probability), or 0 where u < probability; u is the uniform number of word i mod 4 of Philox block " +
      "(seed, counter + floor(i / 4)), (word >> 8) * 2^-24. y may be x.",
    tensors: { x: "read", y: "write" },
    integers: ["numElements", "seed", "counter"],
    floats: ["probability"],
  },
  multiply: {
    summary: "y[i] = a[i] * b[i]; y may be a or b.",
    tensors: { a: "read", b: "read", y: "write" },
    integers: ["numElements"],
    floats: [],
  },
  scaleColumns: {
    summary:
      "y[row, c] = x[row, c] * (scale[c] / divisor[c]) (divisor 1 where null); x, y (N, C) with row strides, scale, divisor (C). y may be x.",
    tensors: { x: "read", scale: "read", divisor: "read?", y: "write" },
    integers: ["numRows", "width", "xRowStride", "yRowStride"],
    floats: [],
  },
  columnDot: {
    summary:
      "y[c] = beta * y[c] + (sum over rows of a[row, c] * b[row, c]) / divisor[c] (1 where divisor is null); a, b (N, C) with row strides, divisor, y (C). " +
      "With beta = 0, y is not read.",
    tensors: { a: "read", b: "read", divisor: "read?", y: "update" },
    integers: ["numRows", "width", "aRowStride", "bRowStride"],
    floats: ["beta"],
  },
  rowNorms: {
    summary: "norms[row] = sqrt(sum of x[row, c]^2); x (N, C), norms (N).",
    tensors: { x: "read", norms: "write" },
    integers: ["numRows", "width"],
    floats: [],
  },
  promptEmbeddingForward: {
    summary:
      "y[row] = weight[token] for tokens below vocabSize, else prompt[token - vocabSize], token = tokens[row]; tokens i32 (N), weight (V, C), " +
      "prompt (P, C), y (N, C).",
    tensors: { tokens: "read", weight: "read", prompt: "read", y: "write" },
    integers: ["numRows", "width", "vocabSize", "promptLength"],
    floats: [],
  },
  promptEmbeddingBackward: {
    summary:
      "dprompt[p] += sum of dy[row] over rows whose token is vocabSize + p, added up in row order in f32 before the one rounding; tokens i32 (N), " +
      "dy (N, C), dprompt (P, C).",
    tensors: { tokens: "read", dy: "read", dprompt: "update" },
    integers: ["numRows", "width", "vocabSize", "promptLength"],
    floats: [],
  },

  // ---- sampling ----------------------------------------------------------------------------------------------------
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
      "tokens[row] = drawn[sources[row]] where sources[row] >= 0; the other rows keep theirs. All i32: tokens, sources (N), drawn (numDrawn).",
    tensors: { sources: "read", drawn: "read", tokens: "update" },
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

  // ---- optimizer ---------------------------------------------------------------------------------------------------
  sumOfSquares: {
    summary: "accumulator[0] += sum of x[i]^2; accumulator is f64 (1).",
    tensors: { x: "read", accumulator: "update" },
    integers: ["numElements"],
    floats: [],
  },
  clipCoefficient: {
    summary:
      "norm = gradientScale * sqrt(sumOfSquares[0]) (f64 (1) in, f32 (1) out); coefficient = gradientScale * min(1, maxNorm / (norm + 1e-6)) (f32 (1)), " +
      "gradientScale alone with maxNorm = 0; NaN where norm is not finite, or above skipAboveNorm when that is > 0.",
    tensors: { sumOfSquares: "read", norm: "write", coefficient: "write" },
    integers: [],
    floats: ["gradientScale", "maxNorm", "skipAboveNorm"],
  },
  adamw: {
    summary:
      "Nothing at all when coefficient[0] is not finite. g = grad * coefficient[0]; m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2; " +
      "w = w - learningRate * (mHat / (sqrt(vHat) + eps) + weightDecay * w), mHat = m / (1 - beta1^step), vHat = v / (1 - beta2^step), step from 1. w is master where given " +
      "(param = master rounded to nearest), else param. stochasticRounding = 1: bf16 param without master, and bf16 v, are rounded up with the probability of their remainder, " +
      "from the low (param) and the high (v) 16 bits of word i mod 4 of Philox block (seed, counter + floor(i / 4)); bf16 m is rounded to nearest. m, v f32 or bf16; grad f32 or bf16; master f32.",
    tensors: {
      param: "update",
      master: "update?",
      grad: "read",
      m: "update",
      v: "update",
      coefficient: "read",
    },
    integers: ["numElements", "step", "seed", "counter", "stochasticRounding"],
    floats: ["learningRate", "beta1", "beta2", "eps", "weightDecay"],
  },
} as const satisfies Record<string, OpSpec>;

export type OpName = keyof typeof ops;
export const opNames = Object.keys(ops) as readonly OpName[];

/** The kinds of activationForward, by the names configurations use. */
export const activationKinds = {
  "squared-relu": 0,
  "gelu-tanh": 1,
  silu: 2,
  "gelu-erf": 3,
  relu: 4,
  sigmoid: 5,
  tanh: 6,
} as const;
export type Activation = keyof typeof activationKinds;

/** The formats of quantised weights, by the names that users give. */
export const quantisedFormats = { int8: 0, nf4: 1, int4: 2 } as const;
export type QuantisedFormat = keyof typeof quantisedFormats;
/** The formats of two codes a byte. */
export function isPacked(format: QuantisedFormat | number): boolean {
  return format !== "int8" && format !== quantisedFormats.int8;
}

/**
 * The sixteen values of NF4: quantiles of the normal distribution, scaled to [-1, 1], with an exact zero. As the QLoRA paper
 * publishes them (Dettmers et al. 2023, appendix E), in f32.
 */
export const nf4Values: readonly number[] = [
  -1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
  -0.18477343022823334, -0.09105003625154495, 0, 0.07958029955625534, 0.16093020141124725,
  0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1,
];
