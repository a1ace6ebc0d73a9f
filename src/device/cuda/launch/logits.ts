/** Launchers of gatherTokens, biasLogits, maskLogits and tokenLogprobs. */
import { DtypeError } from "../../../base/index.ts";
import type { TensorArgument } from "../../contract.ts";
import type { OpName } from "../../ops.ts";
import { i32, i64, kernel, pointer, type CudaKernels } from "../launcher.ts";
import { ceilDiv, clamp, overlapping } from "./grid.ts";

const file = "logits.cu";
const gatherTokens = kernel({ file, entry: "gather_tokens" });
const biasLogits = kernel({ file, entry: "bias_logits" });
const maskLogits = kernel({ file, entry: "mask_logits" });
const tokenLogprobs = kernel({ file, entry: "token_logprobs" });

const threads = 256;
// logits.cu: logprob_threads.
const logprobThreads = 1024;

function expectF32(op: OpName, logits: TensorArgument): void {
  if (logits.dtype !== "f32")
    throw new DtypeError("cuda", `expected f32 logits for ${op}, got ${logits.dtype}`);
}

export const logitsKernels = {
  gatherTokens: (context, { sources, drawn, known, tokens, numRows }) => {
    if (numRows === 0) return;
    const shape = { grid: ceilDiv(numRows, threads), block: threads };
    context.launch(gatherTokens, overlapping(context, shape), [
      pointer(sources),
      pointer(drawn),
      pointer(known),
      pointer(tokens),
      i32(numRows),
    ]);
  },

  biasLogits: (context, { logits, tokens, biases, entryLengths, numRows, vocabSize, maxEntries }) => {
    expectF32("biasLogits", logits);
    if (numRows === 0 || maxEntries === 0) return;
    context.launch(biasLogits, overlapping(context, { grid: numRows, block: threads }), [
      pointer(logits),
      pointer(tokens),
      pointer(biases),
      pointer(entryLengths),
      i64(vocabSize),
      i32(maxEntries),
    ]);
  },

  maskLogits: (context, { logits, rows, allowed, numMasks, vocabSize }) => {
    expectF32("maskLogits", logits);
    if (numMasks === 0) return;
    const numParts = clamp(ceilDiv(vocabSize, 32 * threads), 1, 64);
    context.launch(maskLogits, overlapping(context, { grid: [numParts, numMasks], block: threads }), [
      pointer(logits),
      pointer(rows),
      pointer(allowed),
      i64(vocabSize),
    ]);
  },

  tokenLogprobs: (context, args) => {
    const { logits, tokens, logprobs, ranks, topTokens, topLogprobs, numRows, vocabSize, numTop } = args;
    expectF32("tokenLogprobs", logits);
    if (numRows === 0) return;
    context.launch(tokenLogprobs, overlapping(context, { grid: numRows, block: logprobThreads }), [
      pointer(logits),
      pointer(tokens),
      pointer(logprobs),
      pointer(ranks),
      pointer(topTokens),
      pointer(topLogprobs),
      i32(vocabSize),
      i32(numTop),
    ]);
  },
} satisfies CudaKernels;
