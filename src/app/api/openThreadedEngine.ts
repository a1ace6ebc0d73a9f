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
    // Adapters are loaded from here, as those that come later are, so that a worker started again gets them all in one way.
    const { adapters = {}, ...others } = settings;
    const maxAdapters = Math.max(settings.maxAdapters ?? 0, Object.keys(adapters).length);
    const engine = await ThreadedEngine.open({
      start: () => new Worker(workerUrl, { workerData: { ...others, maxAdapters } }),
      onCrash,
    });
    try {
      for (const [name, folder] of Object.entries(adapters)) await engine.loadAdapter(name, folder);
    } catch (error) {
      await engine[Symbol.asyncDispose]();
      throw error;
    }
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
