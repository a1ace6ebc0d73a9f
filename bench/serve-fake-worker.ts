/** The fake engine of bench/serve-fake.ts in a thread of its own, as `nautilus serve` runs engines. */
import { parentPort, workerData } from "node:worker_threads";
import { invariant } from "../src/base/index.ts";
import { serveEngine } from "../src/infer/index.ts";
import { FakeEngine } from "../test/server/fakeEngine.ts";
import type { FakeEngineOptions } from "../test/server/fakeEngine.ts";

invariant(parentPort !== null, "the engine's worker was run outside a worker thread");
const options: FakeEngineOptions = workerData;
serveEngine(parentPort, new FakeEngine(options), () => Promise.resolve());
