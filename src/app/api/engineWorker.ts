/** The body of an engine's worker thread: opens the model that it is given, and serves it. */
import { parentPort, workerData } from "node:worker_threads";
import { describeFailure, invariant } from "../../base/index.ts";
import { serveEngine } from "../../infer/index.ts";
import type { FromEngine } from "../../infer/index.ts";
import { openEngine } from "./openEngine.ts";
import type { EngineSettings } from "./openEngine.ts";

invariant(parentPort !== null, "the engine's worker was run outside a worker thread");
const port = parentPort;
const settings: EngineSettings = workerData;
try {
  const { engine } = await openEngine({ ...settings, warmsUp: true });
  // A dead engine cannot be mended from within: whoever started this thread starts another. Its memory is not the system's to take back.
  serveEngine(port, engine, async () => {
    try {
      await engine[Symbol.asyncDispose]();
    } finally {
      process.exit(1);
    }
  });
} catch (error) {
  port.postMessage({ type: "refused", error: describeFailure(error, "engine") } satisfies FromEngine);
  port.close();
}
