/**
 * The folder with what belongs to a model beside its weights: the tokenizer's files, chat templates, config.json. For formats that are one
 * file it is made, and goes away with the model.
 */
import { existsSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { CheckpointError, withFileErrors, writeText } from "../../base/index.ts";
import { makeTemporaryFolder } from "../../checkpoint/index.ts";
import type { ModelCheckpoint } from "../../checkpoint/index.ts";

export interface TokenizerFolder extends Disposable {
  readonly folder: string;
  /** What to load the tokenizer from. */
  readonly tokenizerPath: string;
}

/** Throws CheckpointError when neither the checkpoint nor the user has a tokenizer, FileError. */
export function tokenizerFolder(checkpoint: ModelCheckpoint, given: string | undefined): TokenizerFolder {
  const { path, kind, tokenizerFiles, config } = checkpoint;
  if (kind === "hugging-face") {
    return { folder: path, tokenizerPath: given ?? path, [Symbol.dispose]() {} };
  }
  if (given === undefined && ![...tokenizerFiles.keys()].some((name) => isTokenizer(name))) {
    throw new CheckpointError(
      "model",
      `expected a tokenizer in ${path}, got ${checkpoint.tokenizerReason ?? "none"}`,
      {
        hint: "name one with --tokenizer",
      },
    );
  }
  if (given !== undefined && !existsSync(given)) {
    throw new CheckpointError("model", `expected a tokenizer at ${given}, got nothing there`, {
      hint: "check --tokenizer",
    });
  }
  const temporary = makeTemporaryFolder();
  try {
    for (const [name, read] of tokenizerFiles) {
      const file = join(temporary.path, basename(name));
      withFileErrors("model", "a writable file", file, () => writeFileSync(file, read()));
    }
    if (config !== undefined)
      writeText("model", join(temporary.path, "config.json"), JSON.stringify(config, undefined, 2));
    return {
      folder: temporary.path,
      tokenizerPath: given ?? temporary.path,
      [Symbol.dispose]: () => temporary[Symbol.dispose](),
    };
  } catch (error) {
    temporary[Symbol.dispose]();
    throw error;
  }
}

function isTokenizer(name: string): boolean {
  return name === "tokenizer.json" || name.endsWith(".model");
}
