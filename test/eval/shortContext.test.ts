/** Evaluation against a server whose context is shorter than a prompt: what is refused without a tokenizer, and cut with one. */
import { describe, expect, it } from "vitest";
import { openServedModel } from "../../src/app/client/servedLanguageModel.ts";
import type { LanguageModel, Tokenizer } from "../../src/text/index.ts";
import { FakeEngine, tinyTokenizer } from "../server/fakeEngine.ts";
import { fakeServer } from "../server/fakeServer.ts";

async function withModel(
  tokenizer: Tokenizer | undefined,
  body: (model: LanguageModel) => Promise<void>,
): Promise<void> {
  await using server = fakeServer({ engine: new FakeEngine({ maxContext: 32 }) });
  const [url] = await server.start();
  const opened = await openServedModel({ url, name: undefined, tokenizer, maxSequenceTokens: undefined });
  await body(opened.model);
}

async function answers(model: LanguageModel): Promise<number> {
  let count = 0;
  const request = { prompt: "one two three four ".repeat(30), maxNewTokens: 4, stop: [] };
  for await (const event of model.generate([request])) if (event.type === "end") count++;
  return count;
}

describe("a prompt beyond the server's context", () => {
  it("without a tokenizer: refused with what to do", async () => {
    await withModel(undefined, async (model) => {
      await expect(answers(model)).rejects.toThrow(/status 400.*\(give --tokenizer with the folder/s);
      const scored = model.loglikelihood([{ context: "one two ".repeat(60), continuation: " three" }]);
      await expect(scored).rejects.toThrow(/status 400.*\(give --tokenizer with the folder/s);
    });
  });

  it("with one: cut", async () => {
    await withModel(tinyTokenizer(), async (model) => {
      expect(await answers(model)).toBe(1);
    });
  });
});
