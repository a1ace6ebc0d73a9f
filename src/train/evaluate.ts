/** Held-out loss, and bits per byte where the bytes behind the tokens are known. */
import type { Decoder } from "../models/index.ts";
import { sum } from "../tensor/index.ts";
import type { Context } from "../tensor/index.ts";
import { countTargets, ignoreIndex, uploadBatch } from "./step.ts";
import type { HostBatch } from "./step.ts";

export interface EvaluationResult {
  /** Mean per counted target, natural log. */
  loss: number;
  numTargets: number;
}

/** Mean loss over `batches`, without gradients. */
export function evaluateLoss(
  context: Context,
  decoder: Decoder,
  batches: Iterable<HostBatch>,
): EvaluationResult {
  let lossSum = 0;
  let numTargets = 0;
  for (const batch of batches) {
    lossSum += context.scope(() => {
      const { sequences, ...targets } = uploadBatch(context, batch);
      return sum(context, decoder.loss(context, sequences, { ...targets, ignoreIndex })).item();
    });
    numTargets += countTargets(batch.targets);
  }
  return { loss: lossSum / Math.max(1, numTargets), numTargets };
}

/** Bits per byte of text: `loss` per token in natural log, with the mean number of bytes that a token stands for. */
export function bitsPerByte(loss: number, bytesPerToken: number): number {
  return loss / Math.LN2 / bytesPerToken;
}
