/** The demonstration model as it lies in the repository: how well it predicts text it never saw, and that it writes the same every time. */
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { load } from "../../src/index.ts";

const folder = fileURLToPath(new URL("../../demo/nautilus-demo-20m", import.meta.url));
const heldOut = fileURLToPath(new URL("../fixtures/demo/tess.txt", import.meta.url));

it("predicts held-out English in few bits, and writes the same alone, together and again", async () => {
  await using model = await load(folder, { device: "cpu", thread: "caller", cacheTokens: 8192 });
  const text = readFileSync(heldOut, "utf8").trim();
  const [{ logprob }] = await model.languageModel().loglikelihoodRolling([text]);
  const bitsPerByte = -logprob / Math.LN2 / Buffer.byteLength(text);
  // 1.77 when it was committed. A model of single letters needs four, gzip three; below one this text would have been among what it learnt.
  expect(bitsPerByte).toBeGreaterThan(1);
  expect(bitsPerByte).toBeLessThan(1.8);

  const options = { maxTokens: 32, temperature: 0 };
  const prompts = ["She looked at him and", "export function "];
  const alone = await model.generate(prompts[0], options);
  const together = await Promise.all(prompts.map((prompt) => model.generate(prompt, options)));
  expect(together[0].tokens).toEqual(alone.tokens);
  expect(together[1].text).not.toBe(together[0].text);
});

it("stays a small file", () => {
  expect(statSync(join(folder, "model.safetensors")).size).toBeLessThan(42e6);
});
