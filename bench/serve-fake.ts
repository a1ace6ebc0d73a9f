/**
 * A server whose engine costs next to nothing, in a process of its own: what bench/serve.ts measures HTTP's own cost with.
 * Arguments: milliseconds a token, and "thread" for an engine in a thread of its own.
 */
import { Worker } from "node:worker_threads";
import { ThreadedEngine } from "../src/infer/index.ts";
import { FakeEngine } from "../test/server/fakeEngine.ts";
import { fakeModel } from "../test/server/fakeServer.ts";
import { ServedModels } from "../src/app/server/servedModel.ts";
import { createServer } from "../src/app/server/server.ts";

const [tokenMs = "0", place] = process.argv.slice(2);
const options = { tokenMs: Number(tokenMs), maxContext: 4096, isQuick: true };
const model = fakeModel(new FakeEngine(options));
const start = (): Worker =>
  new Worker(new URL("serve-fake-worker.ts", import.meta.url), { workerData: options });
const engine = place === "thread" ? await ThreadedEngine.open({ start }) : model.engine;
const server = createServer({
  models: new ServedModels([{ ...model, engine }]),
  options: { port: 0, log: { level: "silent" }, maxConcurrent: 4096 },
});
const [url] = await server.start();
process.stdout.write(`${url}\n`);
process.once("SIGTERM", () => void server.stop().then(() => engine[Symbol.asyncDispose]()));
