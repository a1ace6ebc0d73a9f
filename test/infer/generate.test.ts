/**
 * Equalities of generation: cached = uncached logits, prompt in pieces = whole, batch of two = two of one, captured = eager, and the same
 * tokens for the same seed.
 */
import { describe, expect, it } from "vitest";
import type { Device } from "../../src/device/index.ts";
import { openDevice } from "../../src/device/index.ts";
import { generateTokens, ModelRunner, parseSampling } from "../../src/infer/index.ts";
import type { SamplingInput, TokenEvent, TokenRequest } from "../../src/infer/index.ts";
import type { Decoder } from "../../src/models/index.ts";
import { Context } from "../../src/tensor/index.ts";
import { tinyConfig, tinyDecoder } from "../tiny-model.ts";

const promptA = [5, 9, 33, 2, 41, 7, 7, 60, 12];
const promptB = [1, 50];

function request(
  prompt: readonly number[],
  sampling: SamplingInput,
  endTokens: readonly number[] = [],
): TokenRequest {
  return { prompt, sampling: parseSampling(sampling), endTokens };
}

async function collect(
  runner: ModelRunner,
  requests: readonly TokenRequest[],
): Promise<{ tokens: number[]; logprobs: number[]; reason: string }[]> {
  const results = requests.map(() => ({ tokens: [] as number[], logprobs: [] as number[], reason: "" }));
  for await (const event of generateTokens(runner, requests) as AsyncIterable<TokenEvent>) {
    results[event.request].tokens.push(event.token);
    results[event.request].logprobs.push(event.logprob);
    if (event.finishReason !== undefined) results[event.request].reason = event.finishReason;
  }
  return results;
}

/** Greedy tokens and their log probabilities by running the whole sequence again for each. */
function uncached(
  context: Context,
  decoder: Decoder,
  prompt: readonly number[],
  count: number,
): { tokens: number[]; logprobs: number[] } {
  const all = [...prompt];
  const logprobs: number[] = [];
  for (let i = 0; i < count; i++) {
    const logits = context.scope(() => {
      const upload = (values: readonly number[]) => context.tensor(values, [values.length], "i32");
      const positions = upload(all.map((_, position) => position));
      const hidden = decoder.forward(context, {
        tokens: upload(all),
        positions,
        numSequences: 1,
        sequenceLength: all.length,
      });
      return decoder.logits(context, hidden).toArray().slice(-tinyConfig.vocabSize);
    });
    const best = logits.indexOf(Math.max(...logits));
    const logSum = Math.log(logits.reduce((total, value) => total + Math.exp(value), 0));
    logprobs.push(logits[best] - logSum);
    all.push(best);
  }
  return { tokens: all.slice(prompt.length), logprobs };
}

async function withRunner(
  kind: "reference" | "cpu",
  maxPromptRows: number,
  body: (runner: ModelRunner, context: Context, decoder: Decoder) => Promise<void>,
): Promise<void> {
  using device: Device = await openDevice({ kind });
  const liveBytes = device.memory().liveBytes;
  {
    const context = new Context(device);
    using decoder = tinyDecoder(context, "f32");
    using runner = new ModelRunner(context, decoder, {
      blockSize: 4,
      numBlocks: 40,
      maxContext: tinyConfig.maxPositions,
      maxPromptRows,
    });
    await body(runner, context, decoder);
    expect(runner.blocks.numFree).toBe(40);
  }
  expect(device.memory().liveBytes).toBe(liveBytes);
}

describe.each(["reference", "cpu"] as const)("generation on %s", (kind) => {
  it.each([64, 2])("equals the uncached forward pass, prompts in pieces of %d", async (maxPromptRows) => {
    await withRunner(kind, maxPromptRows, async (runner, context, decoder) => {
      const expected = uncached(context, decoder, promptA, 12);
      const [got] = await collect(runner, [request(promptA, { maxTokens: 12, temperature: 0 })]);
      expect(got.tokens).toEqual(expected.tokens);
      for (const [index, logprob] of got.logprobs.entries())
        expect(logprob).toBeCloseTo(expected.logprobs[index], 4);
      expect(got.reason).toBe("length");
    });
  });

  it("gives a batch what its members get alone, and the same for the same seed", async () => {
    await withRunner(kind, 64, async (runner) => {
      const a = request(promptA, { maxTokens: 10, temperature: 0.9, topK: 20, topP: 0.9, seed: 3 });
      const b = request(promptB, {
        maxTokens: 17,
        temperature: 1.2,
        seed: 4,
        repetitionPenalty: 1.3,
        frequencyPenalty: 0.2,
      });
      const c = request(promptB, { maxTokens: 5, temperature: 1, minP: 0.05, seed: 9 });
      const together = await collect(runner, [a, b, c]);
      const alone = [];
      for (const one of [a, b, c]) alone.push(...(await collect(runner, [one])));
      expect(together.map(({ tokens }) => tokens)).toEqual(alone.map(({ tokens }) => tokens));
      expect(await collect(runner, [a, b, c])).toEqual(together);
    });
  });

  it("ends at end tokens and at the context, and refuses a prompt beyond it", async () => {
    await withRunner(kind, 64, async (runner) => {
      const [free] = await collect(runner, [request(promptA, { maxTokens: 8, temperature: 0 })]);
      const end = free.tokens[3];
      const [ended] = await collect(runner, [request(promptA, { maxTokens: 8, temperature: 0 }, [end])]);
      expect(ended).toMatchObject({
        tokens: free.tokens.slice(0, free.tokens.indexOf(end) + 1),
        reason: "end",
      });
      const [long] = await collect(runner, [request(promptA, { maxTokens: 500, temperature: 0 })]);
      expect(long).toMatchObject({ reason: "length" });
      expect(long.tokens.length).toBe(tinyConfig.maxPositions - promptA.length);
      await expect(
        collect(runner, [
          request(
            Array.from({ length: 64 }, () => 1),
            { maxTokens: 1 },
          ),
        ]),
      ).rejects.toThrow("expected a prompt shorter than the context of 64 tokens, got 64");
    });
  });
});
