/** Opens a model as an engine in a worker thread; this thread keeps the tokenizer alone. */
import { Worker } from "node:worker_threads";
import { loadTokenizer } from "../../text/index.ts";
import { openCheckpoint } from "../../checkpoint/index.ts";
import { ThreadedEngine } from "../../infer/index.ts";
import { findModel } from "../runs/openModel.ts";
import { tokenizerFolder } from "../runs/tokenizerFolder.ts";
import type { EngineSettings, OpenEngine } from "./openEngine.ts";

const workerUrl = new URL(
  import.meta.url.endsWith(".ts") ? "./engineWorker.ts" : "./engineWorker.js",
  import.meta.url,
);

export interface OpenThreadedEngine extends OpenEngine {
  readonly engine: ThreadedEngine;
}

/** `onCrash` is told when the worker has died; it is started again. Throws as `openEngine`. */
export async function openThreadedEngine(
  settings: EngineSettings,
  onCrash?: (error: unknown) => void,
): Promise<OpenThreadedEngine> {
  using checkpoint = await openCheckpoint(findModel(settings.model));
  const files = tokenizerFolder(checkpoint, settings.tokenizer);
  try {
    const tokenizer = loadTokenizer(files.tokenizerPath);
    const engine = await ThreadedEngine.open({
      start: () => new Worker(workerUrl, { workerData: settings }),
      onCrash,
    });
    const close = async (): Promise<void> => {
      await engine[Symbol.asyncDispose]();
      files[Symbol.dispose]();
    };
    return { path: checkpoint.path, folder: files.folder, engine, tokenizer, [Symbol.asyncDispose]: close };
  } catch (error) {
    files[Symbol.dispose]();
    throw error;
  }
}
