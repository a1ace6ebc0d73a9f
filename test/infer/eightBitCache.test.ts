/**
 * The engine over a cache of E4M3 codes: every request gets what it gets alone, whole, in pieces, from the cache, beside others and after
 * preemption; what attention reads is as near to floats as the format allows; and the memory is what the estimate says.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { OutOfMemoryError } from "../../src/base/index.ts";
import { openDevice } from "../../src/device/index.ts";
import type { Device } from "../../src/device/index.ts";
import { createEngine } from "../../src/infer/index.ts";
import type { EngineCore, EngineOptions } from "../../src/infer/index.ts";
import { cacheBytesPerToken } from "../../src/models/index.ts";
import { Context } from "../../src/tensor/index.ts";
import { plainTokenizer } from "../plain-tokenizer.ts";
import { tinyConfig, tinyDecoder } from "../tiny-model.ts";
import { collect, request } from "./answers.ts";
import type { Answer } from "./answers.ts";

const promptA = [5, 9, 33, 2, 41, 7, 7, 60, 12];
const promptB = [1, 50];

async function withEngine(
  device: Device,
  { dtype = "f32", ...options }: Partial<EngineOptions> & { dtype?: "f32" | "bf16" },
  body: (engine: EngineCore) => Promise<void>,
): Promise<void> {
  const liveBytes = device.memory().liveBytes;
  {
    const context = new Context(device);
    using decoder = tinyDecoder(context, dtype);
    await using engine = createEngine(context, decoder, {
      tokenizer: plainTokenizer(tinyConfig.vocabSize),
      endTokens: [],
      blockSize: 4,
      cacheTokens: 160,
      kvCache: "fp8",
      ...options,
    });
    await body(engine);
    expect(engine.statistics()).toMatchObject({ numRunning: 0, numWaiting: 0, numUsedBlocks: 0 });
  }
  expect(device.memory().liveBytes).toBe(liveBytes);
}

describe.each(["reference", "cpu"] as const)("the engine over a cache of 8 bits on %s", (kind) => {
  it.each(["f32", "bf16"] as const)(
    "gives a request in %s the same tokens whole, in pieces, from the cache, beside others and after preemption",
    async (dtype) => {
      using device = await openDevice({ kind });
      const all = [
        request(promptA, { maxTokens: 20 }),
        request([...promptA, 8, 3], { maxTokens: 10, temperature: 0.9, topK: 20, seed: 3 }),
        request(promptB, { maxTokens: 17, temperature: 1.2, seed: 4, repetitionPenalty: 1.3 }),
        request(promptA.slice(0, 7), { maxTokens: 6, temperature: 1, seed: 1 }),
      ];
      const alone: Answer[] = [];
      await withEngine(device, { dtype, reusesPrefixes: false }, async (engine) => {
        for (const one of all) alone.push(...(await collect(engine, [one])));
        // Beside others, without pieces or a cache: the same bits.
        expect(await collect(engine, all)).toEqual(alone);
      });
      const tokens = alone.map((answer) => answer.tokens);
      await withEngine(device, { dtype, maxStepRows: 2, maxSequences: 2 }, async (engine) => {
        for (const [index, one] of all.entries())
          expect((await collect(engine, [one]))[0].tokens).toEqual(tokens[index]);
      });
      await withEngine(device, { dtype }, async (engine) => {
        for (const expectedCached of [0, 8]) {
          const together = await collect(engine, all);
          expect(together.map((answer) => answer.tokens)).toEqual(tokens);
          expect(together[0].numCachedTokens).toBe(expectedCached);
        }
      });
      await withEngine(device, { dtype, cacheTokens: 32, maxStepRows: 5 }, async (engine) => {
        expect((await collect(engine, all)).map((answer) => answer.tokens)).toEqual(tokens);
        expect(engine.statistics().numPreemptions).toBeGreaterThan(0);
      });
    },
  );

  it("takes the memory that the estimate says, a quarter of f32 and a scale for each token and head", async () => {
    using device = await openDevice({ kind });
    const context = new Context(device);
    using decoder = tinyDecoder(context, "f32");
    const bytesOf = async (kvCache: "auto" | "fp8"): Promise<number> => {
      const before = device.memory().liveBytes;
      const tokenizer = plainTokenizer(tinyConfig.vocabSize);
      await using engine = createEngine(context, decoder, {
        tokenizer,
        endTokens: [],
        cacheTokens: 1600,
        kvCache,
      });
      expect(engine.statistics().numBlocks).toBe(100);
      return device.memory().liveBytes - before;
    };
    const difference = (await bytesOf("auto")) - (await bytesOf("fp8"));
    const perToken = (format: "auto" | "fp8"): number => cacheBytesPerToken(tinyConfig, "f32", format);
    expect(difference).toBe(1600 * (perToken("auto") - perToken("fp8")));
    expect(perToken("fp8")).toBe(2 * tinyConfig.numLayers * tinyConfig.numKvHeads * (tinyConfig.headDim + 4));
  });
});

it("says what a cache that memory has no room for takes, and that 8 bits take less", async () => {
  using device = await openDevice({ kind: "cpu" });
  const context = new Context(device);
  using decoder = tinyDecoder(context, "bf16");
  const { liveBytes } = device.memory();
  const tokenizer = plainTokenizer(tinyConfig.vocabSize);
  const open = (kvCache: "auto" | "fp8") => (): unknown =>
    createEngine(context, decoder, { tokenizer, endTokens: [], cacheTokens: 2 ** 40, kvCache });
  const tokens = "of memory for keys and values of 1099511627776 tokens";
  expect(open("auto")).toThrow(OutOfMemoryError);
  expect(open("auto")).toThrow(tokens);
  expect(open("auto")).toThrow("(lower --cache-tokens, or hold them in 8 bits with --kv-cache fp8)");
  expect(open("fp8")).toThrow("(lower --cache-tokens)");
  expect(device.memory().liveBytes).toBe(liveBytes);
});

/** Few different beginnings, so that requests share much, with a tail of their own. */
const prompts = fc
  .tuple(
    fc.constantFrom(1, 2),
    fc.integer({ min: 1, max: 20 }),
    fc.array(fc.integer({ min: 0, max: 3 }), { maxLength: 6 }),
  )
  .map(([first, numShared, tail]) => [
    first,
    ...Array.from({ length: numShared }, (_, i) => (i * i * first + 3 * i) % 61),
    ...tail,
  ]);

const arrivals = fc.array(
  fc.record({
    prompt: prompts,
    maxTokens: fc.integer({ min: 1, max: 12 }),
    afterTurns: fc.integer({ min: 0, max: 6 }),
    priority: fc.integer({ min: 0, max: 1 }),
    cancelAfter: fc.option(fc.integer({ min: 0, max: 15 }), { nil: undefined }),
  }),
  { minLength: 1, maxLength: 8 },
);

const setups = fc
  .record({
    blockSize: fc.constantFrom(2, 3, 4),
    // The longest request, 27 + 12 tokens, must fit; little more does.
    numSpare: fc.integer({ min: 0, max: 8 }),
    maxStepRows: fc.integer({ min: 8, max: 40 }),
    maxSequences: fc.integer({ min: 1, max: 8 }),
  })
  .map(({ numSpare, blockSize, ...rest }) => ({
    ...rest,
    blockSize,
    cacheTokens: (Math.ceil(39 / blockSize) + numSpare) * blockSize,
  }));

async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++)
    await new Promise((resolve) => {
      setImmediate(resolve);
    });
}

it("gives each request what it gets alone, and every block back, whatever arrives, is cancelled or is squeezed out", async () => {
  using device = await openDevice({ kind: "cpu" });
  const context = new Context(device);
  using decoder = tinyDecoder(context, "f32");
  const tokenizer = plainTokenizer(tinyConfig.vocabSize);
  const common = { tokenizer, endTokens: [], kvCache: "fp8" } as const;
  await using lone = createEngine(context, decoder, { ...common, cacheTokens: 64, reusesPrefixes: false });
  const known = new Map<string, number[]>();
  const expectedFor = async (prompt: readonly number[]): Promise<number[]> => {
    const key = prompt.join(" ");
    const tokens = known.get(key) ?? (await collect(lone, [request(prompt, { maxTokens: 12 })]))[0].tokens;
    known.set(key, tokens);
    return tokens;
  };
  const totals = { preemptions: 0, cached: 0, aborted: 0 };
  await fc.assert(
    fc.asyncProperty(setups, arrivals, async (setup, list) => {
      const expected = await Promise.all(list.map(({ prompt }) => expectedFor(prompt)));
      await using engine = createEngine(context, decoder, { ...common, ...setup });
      const runs = list.map(async ({ prompt, maxTokens, afterTurns, priority, cancelAfter }, index) => {
        await turns(afterTurns);
        const cancel = new AbortController();
        if (cancelAfter !== undefined) void turns(cancelAfter).then(() => cancel.abort());
        const tokens: number[] = [];
        let reason = "";
        const asked = { ...request(prompt, { maxTokens }), priority };
        for await (const event of engine.generate(asked, cancel.signal)) {
          if (event.type === "token") tokens.push(event.token);
          if (event.type === "end") reason = event.reason;
        }
        expect(tokens).toEqual(expected[index].slice(0, tokens.length));
        if (reason === "aborted") totals.aborted++;
        else expect(tokens.length).toBe(maxTokens);
      });
      await Promise.all(runs);
      const statistics = engine.statistics();
      expect(statistics).toMatchObject({ numRunning: 0, numWaiting: 0, numUsedBlocks: 0 });
      totals.preemptions += statistics.numPreemptions;
      totals.cached += statistics.numCachedPromptTokens;
    }),
    { numRuns: 60, seed: 8 },
  );
  // The runs did squeeze, share and cancel.
  expect(totals.preemptions).toBeGreaterThan(5);
  expect(totals.cached).toBeGreaterThan(100);
  expect(totals.aborted).toBeGreaterThan(5);
});
