/**
 * What a cache of 8 bits costs a model's answers: bits a byte of held-out text and of documentation, and greedy continuations token for token, of
 * a model in bf16 over a cache of bf16, over one of E4M3 codes, and, for a measure of what small changes do, of the model in f32.
 *
 *   node bench/kv-cache.ts [--model demo/nautilus-demo-20m] [--device cuda] [--prompts 32] [--tokens 64] [TEXT ...]
 */
import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { parseArgs } from "node:util";
import { load } from "../src/index.ts";
import type { CacheFormat } from "../src/models/index.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    model: { type: "string", default: "demo/nautilus-demo-20m" },
    device: { type: "string", default: "cpu" },
    prompts: { type: "string", default: "32" },
    tokens: { type: "string", default: "64" },
  },
});
const texts = positionals.length > 0 ? positionals : ["test/fixtures/demo/tess.txt", "docs/guide.md"];
const numPrompts = Number(values.prompts);
const maxTokens = Number(values.tokens);

interface Measured {
  bitsPerByte: number[];
  continuations: number[][];
}

async function measure(precision: "f32" | "bf16", kvCache: CacheFormat): Promise<Measured> {
  await using model = await load(values.model, {
    device: values.device === "cuda" ? "cuda" : "cpu",
    precision,
    thread: "caller",
    cacheTokens: 16_384,
    kvCache,
  });
  const contents = texts.map((path) => readFileSync(path, "utf8").trim());
  const scores = await model.languageModel().loglikelihoodRolling(contents);
  const bitsPerByte = scores.map(
    ({ logprob }, index) => -logprob / Math.LN2 / Buffer.byteLength(contents[index]),
  );
  const all = model.tokenizer.encode(contents.join("\n\n"));
  const stride = Math.floor((all.length - 96) / numPrompts);
  // Beginnings of 32 to 95 tokens, from all over the texts.
  const prompts = Array.from({ length: numPrompts }, (_, index) => [
    ...all.subarray(index * stride, index * stride + 32 + (index % 64)),
  ]);
  const answers = await Promise.all(
    prompts.map((prompt) => model.generate(prompt, { maxTokens, temperature: 0 })),
  );
  return { bitsPerByte, continuations: answers.map(({ tokens }) => tokens.map(({ token }) => token)) };
}

const base = await measure("bf16", "auto");
for (const [index, path] of texts.entries())
  console.log(`${basename(path).padEnd(16)} ${base.bitsPerByte[index].toFixed(5)} bits a byte in bf16`);

function compare(label: string, other: Measured): void {
  for (const [index, path] of texts.entries()) {
    const [before, after] = [base.bitsPerByte[index], other.bitsPerByte[index]];
    const percent = (100 * (after / before - 1)).toFixed(3);
    console.log(`${label}: ${basename(path)} ${after.toFixed(5)} bits a byte, ${percent} %`);
  }
  const numAlike = base.continuations.map((tokens, index) => {
    const differs = tokens.findIndex((token, i) => token !== other.continuations[index][i]);
    return differs === -1 ? tokens.length : differs;
  });
  const whole = numAlike.filter((count, index) => count === base.continuations[index].length).length;
  const alike = numAlike.reduce((sum, count) => sum + count, 0);
  const total = base.continuations.reduce((sum, tokens) => sum + tokens.length, 0);
  console.log(
    `${label}: ${whole} of ${numAlike.length} greedy continuations alike to the end, ${alike} of ${total} tokens before the first that differs`,
  );
}

compare("over codes", await measure("bf16", "fp8"));
compare("in f32", await measure("f32", "auto"));
