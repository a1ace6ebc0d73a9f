/** The engine of bench/serve-gpu-server.ts in its thread: a decoder of random weights, graphs of all batch sizes captured before it is ready. */
import { parentPort, workerData } from "node:worker_threads";
import { describeFailure, invariant } from "../src/base/index.ts";
import { openDevice } from "../src/device/index.ts";
import { createEngine, serveEngine } from "../src/infer/index.ts";
import type { FromEngine } from "../src/infer/index.ts";
import { Decoder, nemotronPreset } from "../src/models/index.ts";
import { Context } from "../src/tensor/index.ts";
import { engineSettingsSchema } from "./serve-gpu-shared.ts";
import { letterTokenizer } from "./serve-gpu-tokenizer.ts";

/** Random numbers for the matrices that are quantised, each made from a dense one that is gone before the next. */
function fillQuantised(context: Context, decoder: Decoder): void {
  for (const [index, weight] of [...decoder.quantised.values()].entries())
    context.scope(() => {
      const y = context.empty(weight.shape, decoder.dtype);
      const normal = { seed: index + 2, counter: 0, mean: 0, std: 0.02 };
      context.device.run("randomNormal", { y, numElements: y.numElements, ...normal });
      weight.assign(context, y);
    });
}

invariant(parentPort !== null, "the engine's worker was run outside a worker thread");
const port = parentPort;
try {
  const settings = engineSettingsSchema.parse(workerData);
  const device = await openDevice({ kind: settings.device });
  const context = new Context(device);
  let startMs = performance.now();
  const tell = (what: string): void => {
    device.synchronize();
    console.error(`${what}: ${((performance.now() - startMs) / 1000).toFixed(1)} s`);
    startMs = performance.now();
  };
  const { preset, quantise } = settings;
  const decoder = new Decoder(context, nemotronPreset(preset), { dtype: "bf16", quantise });
  decoder.parameters.initialise(1);
  fillQuantised(context, decoder);
  tell("random weights");
  const engine = createEngine(context, decoder, {
    tokenizer: letterTokenizer(decoder.config.vocabSize),
    endTokens: [],
    cacheTokens: settings.cacheTokens,
    kvCache: settings.kvCache,
    maxContext: settings.maxContext,
    maxSequences: settings.maxSequences,
    maxStepRows: settings.maxStepRows,
    blockSize: settings.blockSize,
    warmsUp: true,
    release: () => {
      decoder.dispose();
      device.dispose();
    },
  });
  tell("cache, graphs of all batch sizes, tree of the vocabulary");
  serveEngine(port, engine, (error) => {
    console.error(error);
    process.exit(1);
  });
} catch (error) {
  port.postMessage({ type: "refused", error: describeFailure(error, "engine") } satisfies FromEngine);
  port.close();
}
