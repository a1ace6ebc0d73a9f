/** A server whose engine answers at once, in a process of its own: what bench/serve.ts measures HTTP's own cost with. */
import { FakeEngine } from "../test/server/fakeEngine.ts";
import { fakeModel } from "../test/server/fakeServer.ts";
import { ServedModels } from "../src/app/server/servedModel.ts";
import { createServer } from "../src/app/server/server.ts";

const tokenMs = Number(process.argv[2] ?? 0);
const engine = new FakeEngine({ tokenMs, maxContext: 4096, isQuick: true });
const server = createServer({
  models: new ServedModels([fakeModel(engine)]),
  options: { port: 0, log: { level: "silent" }, maxConcurrent: 4096 },
});
const [url] = await server.start();
process.stdout.write(`${url}\n`);
process.once("SIGTERM", () => void server.stop());
