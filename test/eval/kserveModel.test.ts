/** The harness's client of KServe's generate route against our own server: what it asks for, what it gives back, and what it cannot do. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { describe, expect, it } from "vitest";
import { openServedModel } from "../../src/app/client/servedLanguageModel.ts";
import type { LanguageModel, GenerateRequest } from "../../src/text/index.ts";
import { FakeEngine } from "../server/fakeEngine.ts";
import { fakeServer } from "../server/fakeServer.ts";

async function opened(url: string) {
  return await openServedModel({ url, name: undefined, tokenizer: undefined, maxSequenceTokens: 512 });
}

async function withModel(engine: FakeEngine, body: (model: LanguageModel) => Promise<void>): Promise<void> {
  await using server = fakeServer({ engine });
  const [url] = await server.start();
  const { model, hasPromptLogprobs, reason } = await opened(`${url}/v2/models/fake/`);
  expect(hasPromptLogprobs).toBe(false);
  expect(reason).toContain("KServe");
  await body(model);
}

async function textsOf(model: LanguageModel, requests: readonly GenerateRequest[]): Promise<string[]> {
  const texts = requests.map(() => "");
  for await (const event of model.generate(requests)) texts[event.index] += event.text;
  return texts;
}

describe("a model behind KServe's generate route", () => {
  it("answers each of many prompts in its place, cut before the first stop string", async () => {
    const engine = new FakeEngine({ answer: (prompt) => ` says ${prompt.slice(-2)}\nQ: and on` });
    await withModel(engine, async (model) => {
      expect(model.name).toBe("fake");
      const prompts = Array.from({ length: 20 }, (_, index) => `number ${index + 10}`);
      const requests = prompts.map((prompt) => ({ prompt, maxNewTokens: 40, stop: ["Q:", "\n"] }));
      expect(await textsOf(model, requests)).toEqual(prompts.map((prompt) => ` says ${prompt.slice(-2)}`));
      expect(engine.requests).toHaveLength(20);
      // Greedy: the likeliest token alone.
      for (const { sampling } of engine.requests)
        expect(sampling.topK === 1 || sampling.temperature === 0).toBe(true);
    });
  });

  it("samples with the temperature and seed it is given", async () => {
    const engine = new FakeEngine();
    await withModel(engine, async (model) => {
      const asked = (seed: number): GenerateRequest => ({
        prompt: "One two",
        maxNewTokens: 12,
        sampling: { temperature: 0.7, seed },
      });
      const [first, second, again] = await textsOf(model, [asked(1), asked(2), asked(1)]);
      expect(again).toBe(first);
      expect(second).not.toBe(first);
      for (const { sampling } of engine.requests) {
        expect(sampling.maxTokens).toBe(12);
        expect(sampling.temperature).toBeCloseTo(0.7, 6);
        expect(sampling.topK).not.toBe(1);
      }
      expect(engine.requests.map(({ sampling }) => sampling.seed).toSorted((a = 0, b = 0) => a - b)).toEqual([
        1, 1, 2,
      ]);
    });
  });

  it("has no log-probabilities, takes no ids, and hands on the server's refusal", async () => {
    await withModel(new FakeEngine({ maxContext: 16 }), async (model) => {
      await expect(model.loglikelihood([{ context: "a", continuation: "b" }])).rejects.toThrow(
        /expected a server with log-probabilities of prompts/,
      );
      await expect(model.loglikelihoodRolling(["a"])).rejects.toThrow(/log-probabilities/);
      await expect(textsOf(model, [{ prompt: Int32Array.of(1, 2), maxNewTokens: 1 }])).rejects.toThrow(
        /expected a text for KServe, got ids/,
      );
      await expect(textsOf(model, [{ prompt: "too long ".repeat(20), maxNewTokens: 4 }])).rejects.toThrow(
        /got status 4\d\d: .*16 tokens/,
      );
    });
  });

  it("takes the prompt off answers that repeat it, as Triton's vLLM model does, and refuses what is no answer", async () => {
    let answer: unknown;
    const server = createServer((request, response) => {
      request.resume();
      response.setHeader("content-type", "application/json");
      response.end(JSON.stringify(answer));
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    try {
      const { model } = await opened(
        `http://127.0.0.1:${(server.address() as AddressInfo).port}/v2/models/other`,
      );
      answer = { text_output: "Two and two is four" };
      expect(await textsOf(model, [{ prompt: "Two and two", maxNewTokens: 3 }])).toEqual([" is four"]);
      answer = { text: "four" };
      await expect(textsOf(model, [{ prompt: "Two", maxNewTokens: 3 }])).rejects.toThrow(
        /expected text_output from the server/,
      );
    } finally {
      server.close();
    }
  });
});
