/** The real evaluation data, which lies beside the repository and is never part of it. */
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { TestContext } from "vitest";
import { DataStore } from "../../src/eval/index.ts";
import type { LanguageModel } from "../../src/text/index.ts";

export const dataFolder = fileURLToPath(new URL("../../../shared/eval-data", import.meta.url));

/** The data, or a test skipped with its reason. */
export function openData(test: TestContext): DataStore {
  test.skip(!existsSync(dataFolder), `the evaluation data is not here (${dataFolder})`);
  return new DataStore({ folders: [dataFolder] });
}

/** For tests that only look at requests. */
export const noModel: Pick<LanguageModel, "tokenizer" | "maxSequenceTokens"> = {
  tokenizer: undefined,
  maxSequenceTokens: 4096,
};
