/**
 * Equalities of the engine on a real decoder: what a request gets is the uncached forward pass, alone, together with others, from the
 * cache, in pieces and after preemption; and everything is free when it has ended.
 */
import { describe, expect, it } from "vitest";
import type { FloatDtype } from "../../src/base/index.ts";
import { openDevice } from "../../src/device/index.ts";
import type { Device } from "../../src/device/index.ts";
import { createEngine, EngineLanguageModel } from "../../src/infer/index.ts";
import type { EngineCore, EngineOptions } from "../../src/infer/index.ts";
import type { Decoder } from "../../src/models/index.ts";
import { Context } from "../../src/tensor/index.ts";
import { plainTokenizer } from "../plain-tokenizer.ts";
import { tinyConfig, tinyDecoder } from "../tiny-model.ts";
import { collect, request } from "./answers.ts";
import type { Answer } from "./answers.ts";

const promptA = [5, 9, 33, 2, 41, 7, 7, 60, 12];
const promptB = [1, 50];

/** log softmax of the training forward at every position, float64. */
function forwardLogprobs(context: Context, decoder: Decoder, tokens: readonly number[]): Float64Array[] {
  const { vocabSize } = tinyConfig;
  const logits = context.scope(() => {
    const upload = (values: readonly number[]) => context.tensor(values, [values.length], "i32");
    const hidden = decoder.forward(context, {
      tokens: upload(tokens),
      positions: upload(tokens.map((_, position) => position)),
      numSequences: 1,
      sequenceLength: tokens.length,
    });
    return decoder.logits(context, hidden).toArray();
  });
  return tokens.map((_, row) => {
    const scores = logits.subarray(row * vocabSize, (row + 1) * vocabSize);
    const total = Math.log(scores.reduce((sum, score) => sum + Math.exp(score), 0));
    return scores.map((score) => score - total);
  });
}

function uncached(context: Context, decoder: Decoder, prompt: readonly number[], count: number): Answer {
  const answer: Answer = {
    tokens: [],
    logprobs: [],
    ranked: [],
    prompt: undefined,
    alternatives: [],
    reason: "length",
    numCachedTokens: 0,
  };
  const all = [...prompt];
  for (let i = 0; i < count; i++) {
    const last = forwardLogprobs(context, decoder, all).at(-1) ?? new Float64Array(1);
    const best = last.indexOf(Math.max(...last));
    answer.tokens.push(best);
    answer.logprobs.push(last[best]);
    all.push(best);
  }
  return answer;
}

/** The same device, but nothing is known to be done before it is waited for: as on a GPU, steps are queued ahead of the host. */
function runningLate(device: Device): Device {
  return new Proxy(device, {
    get(target, name) {
      if (name === "readback") {
        const readback: Device["readback"] = (...where) => {
          const pending = target.readback(...where);
          return { isReady: false, wait: () => pending.wait() };
        };
        return readback;
      }
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

async function withEngine(
  kind: "reference" | "cpu",
  {
    dtype = "f32",
    isLate = false,
    ...options
  }: Partial<EngineOptions> & { dtype?: FloatDtype; isLate?: boolean },
  body: (engine: EngineCore, context: Context, decoder: Decoder) => Promise<void>,
): Promise<void> {
  using device = await openDevice({ kind });
  const liveBytes = device.memory().liveBytes;
  {
    const context = new Context(isLate ? runningLate(device) : device);
    using decoder = tinyDecoder(context, dtype);
    await using engine = createEngine(context, decoder, {
      tokenizer: plainTokenizer(tinyConfig.vocabSize),
      endTokens: [],
      blockSize: 4,
      cacheTokens: 160,
      ...options,
    });
    await body(engine, context, decoder);
    expect(engine.statistics()).toMatchObject({ numRunning: 0, numWaiting: 0, numUsedBlocks: 0 });
  }
  expect(device.memory().liveBytes).toBe(liveBytes);
}

describe.each(["reference", "cpu"] as const)("the engine on %s", (kind) => {
  it.each([64, 2])("equals the uncached forward pass, prompts in pieces of %d", async (maxStepRows) => {
    await withEngine(kind, { maxStepRows }, async (engine, context, decoder) => {
      const expected = uncached(context, decoder, promptA, 12);
      const [got] = await collect(engine, [request(promptA, { maxTokens: 12 })]);
      expect(got.tokens).toEqual(expected.tokens);
      for (const [index, logprob] of got.logprobs.entries())
        expect(logprob).toBeCloseTo(expected.logprobs[index], 4);
      expect(got.reason).toBe("length");
    });
  });

  it("gives a batch what its members get alone, cached or not, and the same for the same seed", async () => {
    const a = request(promptA, { maxTokens: 10, temperature: 0.9, topK: 20, topP: 0.9, seed: 3 });
    const penalties = { repetitionPenalty: 1.3, frequencyPenalty: 0.2, presencePenalty: 0.1 };
    const b = request(promptB, { maxTokens: 17, temperature: 1.2, seed: 4, ...penalties });
    const c = request(promptB, { maxTokens: 5, temperature: 1, minP: 0.05, seed: 9, logitBias: [[50, 2]] });
    const d = request(promptA, { maxTokens: 6, temperature: 1, seed: 1 }, { numLogprobs: 3 });
    const all = [a, b, c, d];
    const alone: Answer[] = [];
    await withEngine(kind, { reusesPrefixes: false }, async (engine) => {
      for (const one of all) alone.push(...(await collect(engine, [one])));
    });
    const tokens = alone.map((answer) => answer.tokens);
    await withEngine(kind, {}, async (engine) => {
      for (const expectedCached of [0, 8]) {
        const together = await collect(engine, all);
        expect(together.map((answer) => answer.tokens)).toEqual(tokens);
        expect(together[0].numCachedTokens).toBe(expectedCached);
      }
    });
    // Room for barely one: they take turns, and start again.
    await withEngine(kind, { cacheTokens: 24, maxStepRows: 5 }, async (engine) => {
      expect((await collect(engine, all)).map((answer) => answer.tokens)).toEqual(tokens);
      expect(engine.statistics().numPreemptions).toBeGreaterThan(0);
    });
  });

  it.each(["f32", "bf16"] as const)(
    "gives the same bits alone, together and a step ahead of the host, in %s",
    async (dtype) => {
      const all = [3, 9, 1, 14, 6, 20].map((maxTokens, seed) =>
        request([...promptA.slice(seed), 40 + seed], { maxTokens, temperature: 1, seed }),
      );
      all.push(request(promptB, { maxTokens: 12, temperature: 1, seed: 7, frequencyPenalty: 1 }));
      const alone: Answer[] = [];
      await withEngine(kind, { dtype, reusesPrefixes: false }, async (engine) => {
        for (const one of all) alone.push(...(await collect(engine, [one])));
      });
      for (const isLate of [false, true]) {
        await withEngine(kind, { dtype, isLate, reusesPrefixes: false }, async (engine) => {
          // Batches of all sizes come up, as the requests end one by one; the penalised one joins the last time only.
          for (const count of [6, 7])
            expect(await collect(engine, all.slice(0, count))).toEqual(alone.slice(0, count));
        });
      }
    },
  );

  it("gives log-probabilities of the training forward, of prompt and answer, with ranks", async () => {
    for (const maxStepRows of [64, 3]) {
      // One row of logits at a time.
      const options = { maxStepRows, maxLogitsBytes: 1 };
      await withEngine(kind, options, async (engine, context, decoder) => {
        const [got] = await collect(engine, [
          request(promptA, { maxTokens: 4 }, { numLogprobs: 20, promptLogprobs: 5 }),
        ]);
        const all = [...promptA, ...got.tokens];
        const expected = forwardLogprobs(context, decoder, all);
        const measured = [...(got.prompt ?? []), ...got.ranked];
        expect(measured.length).toBe(all.length - 1);
        for (const [index, { token, logprob, rank, mostLikely = [] }] of measured.entries()) {
          const row = expected[index];
          expect(token).toBe(all[index + 1]);
          expect(logprob).toBeCloseTo(row[token], 4);
          const order = [...row.keys()].sort((x, y) => row[y] - row[x]);
          expect(rank).toBe(order.indexOf(token));
          expect(mostLikely.map((entry) => entry.token)).toEqual(
            order.slice(0, index < promptA.length - 1 ? 5 : 20),
          );
          for (const entry of mostLikely) expect(entry.logprob).toBeCloseTo(row[entry.token], 4);
        }
      });
    }
  });

  it("measures alternatives to a prompt token where it stands, in whichever piece that is", async () => {
    for (const maxStepRows of [64, 3, 1]) {
      await withEngine(kind, { maxStepRows, maxLogitsBytes: 1 }, async (engine, context, decoder) => {
        const promptAlternatives = [
          { at: 4, token: 0 },
          { at: 4, token: 33 },
          { at: 7, token: 63 },
          { at: 8, token: 1 },
        ];
        const asked = request(
          promptA,
          { maxTokens: 0 },
          { promptLogprobs: 0, promptLogprobsFrom: 4, promptAlternatives },
        );
        const rows = forwardLogprobs(context, decoder, promptA);
        // The second reads what is cached before the row.
        for (const _ of [1, 2]) {
          const [{ prompt, alternatives }] = await collect(engine, [asked]);
          expect(prompt?.map(({ token }) => token)).toEqual(promptA.slice(4));
          expect(alternatives.length).toBe(promptAlternatives.length);
          for (const [index, { token, logprob, rank }] of alternatives.entries()) {
            expect(token).toBe(promptAlternatives[index].token);
            const row = rows[promptAlternatives[index].at - 1];
            expect(logprob).toBeCloseTo(row[token], 4);
            expect(rank).toBe(row.filter((other) => other > row[token]).length);
          }
        }
        for (const [unscored, message] of [
          [{ promptLogprobs: undefined }, "expected alternatives to scored prompt tokens"],
          [{ promptLogprobsFrom: 5 }, "in their order (those from 5 to 8), got one at 4"],
          [{ promptAlternatives: [{ at: 9, token: 1 }] }, "(those from 4 to 8), got one at 9"],
          [{ promptAlternatives: [5, 4].map((at) => ({ at, token: 1 })) }, "from 5 to 8), got one at 4"],
          [
            { promptAlternatives: [{ at: 4, token: 64 }] },
            "expected alternative tokens from 0 to 63, got 64",
          ],
        ] as const)
          await expect(collect(engine, [{ ...asked, ...unscored }])).rejects.toThrow(message);
      });
    }
  });

  it("pools hidden states as the forward pass has them", async () => {
    await withEngine(kind, { maxStepRows: 4 }, async (engine, context, decoder) => {
      const { width } = tinyConfig;
      const hidden = context.scope(() => {
        const upload = (values: readonly number[]) => context.tensor(values, [values.length], "i32");
        return decoder
          .forward(context, {
            tokens: upload(promptA),
            positions: upload(promptA.map((_, position) => position)),
            numSequences: 1,
            sequenceLength: promptA.length,
          })
          .toArray();
      });
      const last = hidden.subarray((promptA.length - 1) * width);
      const mean = last.map(
        (_, c) => promptA.reduce((sum, _token, row) => sum + hidden[row * width + c], 0) / promptA.length,
      );
      const [gotMean] = await engine.embed([promptA, promptB], "mean");
      const [gotLast] = await engine.embed([promptA], "last");
      for (let c = 0; c < width; c++) {
        expect(gotMean[c]).toBeCloseTo(mean[c], 4);
        expect(gotLast[c]).toBeCloseTo(last[c], 4);
      }
    });
  });

  it("ends at end tokens, not before the least length, and at the context, and refuses what cannot be", async () => {
    await withEngine(kind, {}, async (engine) => {
      const [free] = await collect(engine, [request(promptA, { maxTokens: 8 })]);
      const end = free.tokens[3];
      const until = free.tokens.slice(0, free.tokens.indexOf(end) + 1);
      const [ended, later] = await collect(engine, [
        request(promptA, { maxTokens: 8 }, { endTokens: [end] }),
        request(promptA, { maxTokens: 8, minTokens: 6 }, { endTokens: [end] }),
      ]);
      expect(ended).toMatchObject({ tokens: until, reason: "end" });
      expect(later.tokens.slice(0, 6)).not.toContain(end);
      const [long] = await collect(engine, [request(promptA, { maxTokens: 500 })]);
      expect(long.reason).toBe("length");
      expect(long.tokens.length).toBe(tinyConfig.maxPositions - promptA.length);
      const tooLong = request(
        Array.from({ length: 64 }, () => 1),
        { maxTokens: 1 },
      );
      await expect(collect(engine, [tooLong])).rejects.toThrow(
        "expected a prompt shorter than the context of 64 tokens, got 64",
      );
      await expect(collect(engine, [request([99], {})])).rejects.toThrow(
        "expected prompt tokens from 0 to 63, got 99",
      );
      await expect(collect(engine, [request([1], {}, { adapter: "x" })])).rejects.toThrow(
        "adapters are not available",
      );
    });
  });

  it("writes only what a constraint lets through, beside requests without one", async () => {
    await withEngine(kind, {}, async (engine) => {
      const constraint = { kind: "regex", pattern: "[0-9]{3}(-[0-9])?" } as const;
      const asked = [1, 2, 3].map((seed) =>
        request(promptB, { maxTokens: 20, temperature: 1.5, seed }, { constraint }),
      );
      const free = request(promptA, { maxTokens: 9 });
      const answers = await collect(engine, [...asked, free]);
      for (const { tokens, reason } of answers.slice(0, 3)) {
        const text = String.fromCharCode(...tokens.filter((token) => token !== 63));
        expect(text).toMatch(/^[0-9]{3}(-[0-9])?$/);
        expect(reason).toMatch(/stop|end/);
      }
      expect(answers[3].tokens).toEqual((await collect(engine, [free]))[0].tokens);
      const broken = { kind: "regex", pattern: "(" } as const;
      await expect(collect(engine, [request([1], {}, { constraint: broken })])).rejects.toThrow(
        "regular expression",
      );
    });
  });

  it("scores continuations as the forward pass does, and reads their context once", async () => {
    await withEngine(kind, {}, async (engine, context, decoder) => {
      const model = new EngineLanguageModel(engine, {
        name: "tiny",
        tokenizer: plainTokenizer(tinyConfig.vocabSize),
      });
      const pairs = [[3], [3, 4], [60], [7, 7, 7]].map((continuation) => ({
        context: Int32Array.from(promptA),
        continuation: Int32Array.from(continuation),
      }));
      const scores = await model.loglikelihood([
        ...pairs,
        { context: "", continuation: Int32Array.of(2, 3) },
      ]);
      for (const [index, { continuation }] of pairs.entries()) {
        const rows = forwardLogprobs(context, decoder, [...promptA, ...continuation]);
        const expected = [...continuation].map((token, i) => rows[promptA.length - 1 + i][token]);
        const isGreedy = [...continuation].every((token, i) => {
          const row = rows[promptA.length - 1 + i];
          return row.indexOf(Math.max(...row)) === token;
        });
        expect(scores[index].logprob).toBeCloseTo(
          expected.reduce((sum, value) => sum + value, 0),
          3,
        );
        expect(scores[index]).toMatchObject({ isGreedy, numTokens: continuation.length });
      }
      const empty = forwardLogprobs(context, decoder, [63, 2, 3]);
      expect(scores[4].logprob).toBeCloseTo(empty[0][2] + empty[1][3], 4);
      // One token alone is told by the row that the first choice reads. The context is read once, its last block's beginning included:
      // the other two find it, in the same step.
      expect(engine.statistics()).toMatchObject({
        numPromptTokens: 10 + 11 + 12 + 3,
        numCachedPromptTokens: 2 * 9,
      });
    });
  });

  it("scores every token of a long text once, and cuts long contexts on the left", async () => {
    await withEngine(kind, { maxContext: 8 }, async (engine, context, decoder) => {
      const model = new EngineLanguageModel(engine, {
        name: "tiny",
        tokenizer: plainTokenizer(tinyConfig.vocabSize),
      });
      const text = Array.from({ length: 20 }, (_, i) => (i * 11 + 3) % 60);
      const windows = [[63, ...text.slice(0, 8)], text.slice(7, 16), text.slice(11, 20)];
      const newTokens = [8, 8, 4];
      let expected = 0;
      for (const [index, window] of windows.entries()) {
        const rows = forwardLogprobs(context, decoder, window.slice(0, -1));
        for (let i = window.length - newTokens[index]; i < window.length; i++)
          expected += rows[i - 1][window[i]];
      }
      const [rolling] = await model.loglikelihoodRolling([Int32Array.from(text)]);
      expect(rolling.numTokens).toBe(20);
      expect(rolling.logprob).toBeCloseTo(expected, 3);
      const [cut] = await model.loglikelihood([
        { context: Int32Array.from(text.slice(0, 18)), continuation: Int32Array.from(text.slice(18)) },
      ]);
      const rows = forwardLogprobs(context, decoder, text.slice(11, 19));
      expect(cut.logprob).toBeCloseTo(rows[6][text[18]] + rows[7][text[19]], 4);
    });
  });
});
