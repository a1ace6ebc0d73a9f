/** A constraint and a least length together: end tokens wait while anything else may come. */
import type { ConstraintState } from "../constraint/contract.ts";
import type { SamplingOptions } from "../sampling.ts";

export function constrainedTokens(
  constraint: ConstraintState,
  { sampling, endTokens }: { sampling: SamplingOptions; endTokens: readonly number[] },
): () => Uint32Array {
  return () => {
    const allowed = constraint.allowed();
    if (constraint.numTaken >= sampling.minTokens) return allowed;
    const others = allowed.slice();
    for (const token of endTokens) others[token >> 5] &= ~(1 << (token & 31));
    return others.some((word) => word !== 0) ? others : allowed;
  };
}
