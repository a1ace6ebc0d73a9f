/** What an engine says of itself where no model is behind it: its runner makes tokens up. */
import type { EngineModelInfo } from "../src/infer/index.ts";

export function noModelInfo({
  maxContext,
  vocabSize,
}: Pick<EngineModelInfo, "maxContext" | "vocabSize">): EngineModelInfo {
  return {
    maxContext,
    vocabSize,
    width: 1,
    numParameters: 0,
    dtype: "",
    quantise: null,
    kvCache: "",
    device: "",
    adapters: [],
  };
}
