/** Python's clients of OpenAI's routes: its own library, and lm-evaluation-harness scoring texts. */
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { parseSampling } from "../../src/infer/index.ts";
import type { NautilusServer } from "../../src/app/server/server.ts";
import { FakeEngine } from "../server/fakeEngine.ts";
import { fakeServer } from "../server/fakeServer.ts";
import { hasModules, runPython } from "./python.ts";

const hasOpenAi = hasModules("Python's openai", ["openai"]);
const hasHarness = hasModules("lm-evaluation-harness", [
  "lm_eval",
  "lm_eval.models.openai_completions",
  "tenacity",
]);
const engine = new FakeEngine();
let server: NautilusServer;
let url: string;

beforeAll(async () => {
  server = fakeServer({ engine, options: { apiKeys: ["secret"] } });
  [url] = await server.start();
});
afterAll(() => server.stop());

describe.skipIf(!hasOpenAi)("Python's openai library", () => {
  it("completes, chats, embeds, streams, and is refused in its own terms", async () => {
    const said = z.record(z.string(), z.unknown()).parse(await runPython("openai_client.py", [url]));
    expect(said["streamed"]).toBe(said["whole"]);
    expect(said["pieces"]).toBe(said["answer"]);
    expect(String(said["whole"]).length).toBeGreaterThan(0);
    expect(said).toMatchObject({ models: ["fake"], width: 8, refused: "model_not_found", unknown: 401 });
  });
});

/** The model's own log-likelihood of what follows the first tokens. */
async function loglikelihood(ids: readonly number[], numContext: number): Promise<number> {
  const sampling = parseSampling({ maxTokens: 0 });
  for await (const event of engine.generate({ prompt: ids, sampling, promptLogprobs: 1 })) {
    if (event.type === "prompt")
      return event.logprobs.slice(numContext - 1).reduce((sum, { logprob }) => sum + logprob, 0);
  }
  return NaN;
}

describe.skipIf(!hasHarness)("lm-evaluation-harness", () => {
  it("scores continuations as the model does, and generates", async () => {
    const pairs = [
      ["The ship sails", " through the storm"],
      ["Das Schiff", " fährt"],
      ["море", " и звёзды"],
      ["a", " b c d e"],
    ];
    const tokenizer = join(import.meta.dirname, "../fixtures/tokenizer");
    process.env["OPENAI_API_KEY"] = "secret";
    const schema = z.object({
      scored: z.array(z.tuple([z.number(), z.boolean()])),
      generated: z.array(z.string()),
      encoded: z.array(z.tuple([z.array(z.int()), z.int()])),
    });
    const answer = schema.parse(
      await runPython("lm_eval_client.py", [url, tokenizer, JSON.stringify(pairs), "The ship"]),
    );
    for (const [i, [ids, numContext]] of answer.encoded.entries())
      expect(answer.scored[i][0]).toBeCloseTo(await loglikelihood(ids, numContext), 9);
    expect(answer.generated).toHaveLength(1);
    expect(answer.generated[0].length).toBeGreaterThan(0);
  });
});
