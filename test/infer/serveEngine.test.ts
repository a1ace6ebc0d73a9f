/** What an engine's thread sends, and when: over a real port, with a model of arithmetic. */
import { once } from "node:events";
import { MessageChannel } from "node:worker_threads";
import { expect, it } from "vitest";
import { FakeRunner } from "../../src/infer/engine/fakeRunner.ts";
import { EngineCore, parseSampling, serveEngine } from "../../src/infer/index.ts";
import type { FromEngine } from "../../src/infer/index.ts";
import { noModelInfo } from "../no-model.ts";
import { plainTokenizer } from "../plain-tokenizer.ts";

const scheduler = { numBlocks: 64, blockSize: 16, maxStepRows: 64, maxSequences: 4 };

it("sends a step's tokens before the next step is waited for: one message a step", async () => {
  const engine = new EngineCore({
    runner: new FakeRunner({ ...scheduler, vocabSize: 256 }),
    tokenizer: plainTokenizer(256),
    info: noModelInfo({ maxContext: 512, vocabSize: 256 }),
    scheduler,
    endTokens: [],
  });
  const { port1, port2 } = new MessageChannel();
  const steps: number[][] = [];
  let numEnded = 0;
  port2.on("message", (message: FromEngine) => {
    if (message.type !== "events") return;
    steps.push(message.events.flatMap(({ id, event }) => (event.type === "token" ? [id] : [])));
    numEnded += message.events.filter(({ event }) => event.type === "end").length;
    if (numEnded === 2) port2.postMessage({ type: "close" });
  });
  serveEngine(port1, engine, () => Promise.resolve());
  const sampling = parseSampling({ temperature: 0, maxTokens: 12 });
  for (const id of [0, 1])
    port2.postMessage({ type: "generate", id, request: { prompt: [1 + id, 2, 3], sampling } });
  await once(port2, "close");
  expect(steps.filter((ids) => ids.length > 0)).toEqual(Array.from({ length: 12 }, () => [0, 1]));
});
