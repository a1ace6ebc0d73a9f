/** All conformance cases, by family. */
import type { OpName } from "../../../src/device/index.ts";
import type { ConformanceCase } from "../case.ts";
import { activationCases } from "./activation.ts";
import { adapterCases } from "./adapter.ts";
import { attentionCases } from "./attention.ts";
import { cacheCases } from "./cache.ts";
import { elementwiseCases, embeddingCases } from "./elementwise.ts";
import { logitsCases } from "./logits.ts";
import { lossCases } from "./loss.ts";
import { matmulCases } from "./matmul.ts";
import { normCases } from "./norm.ts";
import { optimizerCases } from "./optimizer.ts";
import { quantiseFamilyCases } from "./quantise.ts";
import { rowAdapterCases } from "./rowAdapter.ts";
import { samplingCases } from "./sampling.ts";

export function allCases(): ConformanceCase[] {
  return [
    ...elementwiseCases(),
    ...embeddingCases(),
    ...matmulCases(),
    ...quantiseFamilyCases(),
    ...rowAdapterCases(),
    ...normCases(),
    ...cacheCases(),
    ...attentionCases(),
    ...activationCases(),
    ...lossCases(),
    ...adapterCases(),
    ...samplingCases(),
    ...logitsCases(),
    ...optimizerCases(),
  ];
}

/** The cases of one operator. */
export function casesOf(op: OpName): ConformanceCase[] {
  return allCases().filter((candidate) => candidate.op === op);
}
