/** The real evaluation data, which lies beside the repository and is never part of it. */
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
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

/** WinoGrande with its validation rows as training rows too. */
export function winograndeWithTraining(): { path: string } & Disposable {
  const path = mkdtempSync(join(tmpdir(), "nautilus-eval-"));
  mkdirSync(join(path, "winogrande"));
  for (const split of ["train", "validation"])
    copyFileSync(
      join(dataFolder, "winogrande", "validation.jsonl"),
      join(path, "winogrande", `${split}.jsonl`),
    );
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}
