/**
 * The scheduler and the engine over a model of arithmetic: whatever arrives, is cancelled or is squeezed out, each request gets what it
 * would get alone, and no block stays behind.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { invariant } from "../../base/index.ts";
import type { StreamDecoder, Tokenizer } from "../../text/index.ts";
import { parseSampling } from "../sampling.ts";
import type { SamplingInput } from "../sampling.ts";
import type { EngineEvent, EngineRequest } from "./contract.ts";
import { EngineCore } from "./core.ts";
import { fakeContinuation, FakeRunner } from "./fakeRunner.ts";
import { noModelInfo } from "../../../test/no-model.ts";

const vocabSize = 300;

/** Token i is the byte i mod 256. */
const tokenizer: Tokenizer = {
  vocabSize,
  bosId: undefined,
  eosId: 299,
  padId: undefined,
  unkId: undefined,
  specialTokens: new Map(),
  encode: (text) => Int32Array.from(new TextEncoder().encode(text)),
  encodeBytes: (bytes) => Int32Array.from(bytes),
  decode: (ids) => new TextDecoder().decode(Uint8Array.from(ids)),
  decodeBytes: (ids) => Uint8Array.from(ids),
  createDecoder(): StreamDecoder {
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    return {
      push: (ids) => decoder.decode(Uint8Array.from(typeof ids === "number" ? [ids] : ids), { stream: true }),
      flush: () => decoder.decode(),
    };
  },
  idOf: () => undefined,
  pieceOf: (id) => String(id),
};

interface Setup {
  numBlocks: number;
  blockSize: number;
  maxStepRows: number;
  maxSequences: number;
  isReady?: () => boolean;
}

function makeEngine({ numBlocks, blockSize, maxStepRows, maxSequences, isReady }: Setup): EngineCore {
  return new EngineCore({
    runner: new FakeRunner({
      numBlocks,
      blockSize,
      vocabSize,
      ...(isReady === undefined ? {} : { isReady }),
    }),
    tokenizer,
    info: noModelInfo({ maxContext: numBlocks * blockSize, vocabSize }),
    scheduler: { numBlocks, blockSize, maxStepRows, maxSequences },
    endTokens: [],
  });
}

function request(
  prompt: readonly number[],
  sampling: SamplingInput,
  rest: Partial<EngineRequest> = {},
): EngineRequest {
  return { prompt, sampling: parseSampling({ temperature: 0, ...sampling }), ...rest };
}

interface Answer {
  tokens: number[];
  text: string;
  end: EngineEvent & { type: "end" };
}

async function answer(engine: EngineCore, asked: EngineRequest, signal?: AbortSignal): Promise<Answer> {
  const tokens: number[] = [];
  let text = "";
  let end: Answer["end"] | undefined;
  for await (const event of engine.generate(asked, signal)) {
    expect(end).toBeUndefined();
    if (event.type === "token") tokens.push(event.token);
    if (event.type !== "prompt") text += event.text;
    if (event.type === "end") end = event;
  }
  invariant(end !== undefined, "an end");
  return { tokens, text, end };
}

async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++)
    await new Promise((resolve) => {
      setImmediate(resolve);
    });
}

/** Few different beginnings, so that requests share much, with a tail of their own. */
const prompts = fc
  .tuple(
    fc.constantFrom(1, 2),
    fc.integer({ min: 0, max: 20 }),
    fc.array(fc.integer({ min: 0, max: 3 }), { maxLength: 6 }),
  )
  .map(([first, numShared, tail]) => [
    first,
    ...Array.from({ length: numShared }, (_, i) => (i * first) % 7),
    ...tail,
  ]);

const arrivals = fc.array(
  fc.record({
    prompt: prompts,
    maxTokens: fc.integer({ min: 0, max: 12 }),
    afterTurns: fc.integer({ min: 0, max: 6 }),
    priority: fc.integer({ min: 0, max: 1 }),
    /** Turns until it is cancelled; beyond most answers: never. */
    cancelAfter: fc.option(fc.integer({ min: 0, max: 15 }), { nil: undefined }),
    /** Waits for its penalties' sake for each token on the host. */
    needsHost: fc.boolean(),
  }),
  { minLength: 1, maxLength: 12 },
);

const setups = fc
  .record({
    blockSize: fc.constantFrom(2, 3, 4),
    // The longest request, 27 + 12 tokens, must fit; little more does.
    numSpare: fc.integer({ min: 0, max: 8 }),
    maxStepRows: fc.integer({ min: 8, max: 40 }),
    maxSequences: fc.integer({ min: 1, max: 8 }),
  })
  .map(({ numSpare, ...rest }) => ({ ...rest, numBlocks: Math.ceil(39 / rest.blockSize) + numSpare }));

describe("the engine", () => {
  it("gives each request what it gets alone, and every block back, whatever happens", async () => {
    let numPreemptions = 0;
    let numCached = 0;
    let numCopied = 0;
    await fc.assert(
      fc.asyncProperty(setups, arrivals, fc.infiniteStream(fc.boolean()), async (setup, list, ready) => {
        await using engine = makeEngine({ ...setup, isReady: () => ready.next().value === true });
        const runs = list.map(async ({ prompt, maxTokens, afterTurns, priority, cancelAfter, needsHost }) => {
          await turns(afterTurns);
          const cancel = new AbortController();
          const penalty = needsHost ? { frequencyPenalty: 0.5 } : {};
          const asked = request(prompt, { maxTokens, ...penalty }, { priority });
          const running = answer(engine, asked, cancel.signal);
          if (cancelAfter !== undefined) void turns(cancelAfter).then(() => cancel.abort());
          const { tokens, end } = await running;
          const expected = fakeContinuation(prompt, maxTokens, vocabSize);
          expect(tokens).toEqual(expected.slice(0, tokens.length));
          if (end.reason === "aborted") expect(cancelAfter).toBeDefined();
          else expect(tokens.length).toBe(maxTokens);
          expect(end.numNewTokens).toBe(tokens.length);
          // All that comes whole ends with a block, or before the last token.
          const { numCachedTokens } = end;
          if (numCachedTokens % setup.blockSize !== 0 && numCachedTokens < prompt.length - 1) numCopied++;
        });
        await Promise.all(runs);
        const statistics = engine.statistics();
        expect(statistics).toMatchObject({ numRunning: 0, numWaiting: 0, numUsedBlocks: 0 });
        numPreemptions += statistics.numPreemptions;
        numCached += statistics.numCachedPromptTokens;
      }),
      { numRuns: 500 },
    );
    // The runs did squeeze and did share.
    expect(numPreemptions).toBeGreaterThan(10);
    expect(numCached).toBeGreaterThan(1000);
    expect(numCopied).toBeGreaterThan(100);
  });

  it("recomputes the last token of a prompt that is wholly cached, at a block border and beside it", async () => {
    await using engine = makeEngine({ numBlocks: 20, blockSize: 4, maxStepRows: 16, maxSequences: 4 });
    for (const length of [7, 8, 9]) {
      const prompt = Array.from({ length }, (_, i) => i + length);
      const expected = fakeContinuation(prompt, 5, vocabSize);
      for (const numCached of [0, length - 1]) {
        const got = await answer(engine, request(prompt, { maxTokens: 5 }));
        expect(got.tokens).toEqual(expected);
        expect(got.end.numCachedTokens).toBe(numCached);
      }
    }
  });

  it("copies the beginning of a block that goes on differently, also from a block that was copied in the same step", async () => {
    await using engine = makeEngine({ numBlocks: 40, blockSize: 4, maxStepRows: 64, maxSequences: 4 });
    const shared = [1, 2, 3, 4, 5, 6];
    const tails = [[7], [8, 9, 10], [8, 9, 11], [8, 12, 13]];
    const got = await Promise.all(
      tails.map((tail) => answer(engine, request([...shared, ...tail], { maxTokens: 0 }))),
    );
    // The first ends in its second block; of those after it the first in order reads the rest of that block, the others find more of it.
    expect(got.map(({ end }) => end.numCachedTokens)).toEqual([0, 6, 8, 7]);
    for (const tail of tails) {
      const prompt = [...shared, ...tail];
      const again = await answer(engine, request(prompt, { maxTokens: 6 }));
      expect(again.tokens).toEqual(fakeContinuation(prompt, 6, vocabSize));
      expect(again.end.numCachedTokens).toBe(prompt.length - 1);
    }
  });

  it("keeps what it copies from until it is copied, when room is short", async () => {
    const prompt = [1, 2, 3, 50, 51, 52, 53, 54, 55, 56];
    // Of four blocks three are needed, and the one with the beginning lay unused longest. Of three it is needed itself.
    for (const [numBlocks, numCached] of [
      [4, 3],
      [3, 0],
    ]) {
      await using engine = makeEngine({ numBlocks, blockSize: 4, maxStepRows: 12, maxSequences: 2 });
      await answer(engine, request([1, 2, 3, 4], { maxTokens: 1 }));
      await answer(engine, request([9, 9, 9, 9], { maxTokens: 1 }));
      const got = await answer(engine, request(prompt, { maxTokens: 2 }));
      expect(got.tokens).toEqual(fakeContinuation(prompt, 2, vocabSize));
      expect(got.end.numCachedTokens).toBe(numCached);
    }
    // Two copy from the only blocks that are left, and a third one arrives with them.
    await using engine = makeEngine({ numBlocks: 4, blockSize: 4, maxStepRows: 12, maxSequences: 4 });
    const together = async (prompts: readonly (readonly number[])[]): Promise<Answer[]> =>
      await Promise.all(prompts.map((one) => answer(engine, request(one, { maxTokens: 1 }))));
    const before = [
      [1, 2, 3, 4],
      [5, 6, 7, 8],
    ];
    const after = [
      [1, 2, 3, 50],
      [5, 6, 7, 50],
      [9, 9, 9, 9],
    ];
    await together(before);
    for (const [index, { tokens }] of (await together(after)).entries())
      expect(tokens).toEqual(fakeContinuation(after[index], 1, vocabSize));
  });

  it("reads one prompt once for requests that arrive together, also when it takes several steps", async () => {
    for (const maxStepRows of [64, 10]) {
      await using engine = makeEngine({ numBlocks: 60, blockSize: 4, maxStepRows, maxSequences: 8 });
      const prompt = Array.from({ length: 34 }, (_, i) => i);
      const got = await Promise.all(
        Array.from({ length: 6 }, () => answer(engine, request(prompt, { maxTokens: 3 }))),
      );
      for (const { tokens } of got) expect(tokens).toEqual(fakeContinuation(prompt, 3, vocabSize));
      expect(got.map(({ end }) => end.numCachedTokens)).toEqual([0, 32, 32, 32, 32, 32]);
    }
  });

  it("keeps adapters' caches apart and never shows what only collides", async () => {
    await using engine = makeEngine({ numBlocks: 20, blockSize: 4, maxStepRows: 16, maxSequences: 4 });
    await answer(engine, request([1, 2, 3, 4, 5], { maxTokens: 1 }));
    const other = await answer(engine, request([9, 2, 3, 4, 5], { maxTokens: 4 }));
    expect(other.end.numCachedTokens).toBe(0);
    expect(other.tokens).toEqual(fakeContinuation([9, 2, 3, 4, 5], 4, vocabSize));
  });

  it("goes on to the last place of the context", async () => {
    await using engine = makeEngine({ numBlocks: 5, blockSize: 4, maxStepRows: 16, maxSequences: 2 });
    const prompt = [1, 2, 3];
    const got = await answer(engine, request(prompt, { maxTokens: 1000 }));
    expect(got.tokens).toEqual(fakeContinuation(prompt, 17, vocabSize));
    expect(got.end.reason).toBe("length");
    await expect(
      answer(
        engine,
        request(
          Array.from({ length: 20 }, () => 1),
          { maxTokens: 1 },
        ),
      ),
    ).rejects.toThrow("expected a prompt shorter than the context of 20 tokens, got 20");
  });

  it("lets higher priority go first", async () => {
    await using engine = makeEngine({ numBlocks: 20, blockSize: 4, maxStepRows: 8, maxSequences: 1 });
    const order: string[] = [];
    const run = async (name: string, priority: number): Promise<void> => {
      await answer(engine, request([1, 2], { maxTokens: 3 }, { priority }));
      order.push(name);
    };
    await Promise.all([run("first", 0), run("second", 0), run("urgent", 1)]);
    expect(order).toEqual(["urgent", "first", "second"]);
  });

  it("ends when the loop is left early, before the first token, and when it is closed", async () => {
    const engine = makeEngine({ numBlocks: 20, blockSize: 4, maxStepRows: 8, maxSequences: 2 });
    for await (const event of engine.generate(request([1, 2], { maxTokens: 30 }))) {
      expect(event.type).toBe("token");
      break;
    }
    expect(engine.statistics().numUsedBlocks).toBe(0);
    const early = await answer(engine, request([1, 2], { maxTokens: 30 }), AbortSignal.abort());
    expect(early).toMatchObject({ tokens: [], end: { reason: "aborted" } });
    const last = answer(engine, request([1, 2], { maxTokens: 60 }));
    await turns(3);
    await engine[Symbol.asyncDispose]();
    expect((await last).end.reason).toBe("aborted");
    await expect(answer(engine, request([1], {}))).rejects.toThrow("expected an engine in use");
  });

  it("stops at a string across tokens and inside of a character's bytes, and not before the least length", async () => {
    // "é" is two tokens, and the stop string begins in the middle of what the tokens before it say.
    const prompt = [5, 6];
    const { text, tokens } = await (async () => {
      await using engine = makeEngine({ numBlocks: 20, blockSize: 4, maxStepRows: 8, maxSequences: 2 });
      return await answer(engine, request(prompt, { maxTokens: 40 }));
    })();
    expect(text).toBe(new TextDecoder().decode(Uint8Array.from(tokens)));
    const stop = text.slice(10, 13);
    await using engine = makeEngine({ numBlocks: 20, blockSize: 4, maxStepRows: 8, maxSequences: 2 });
    const stopped = await answer(engine, request(prompt, { maxTokens: 40, stop: [stop] }));
    expect(stopped.text).toBe(text.slice(0, text.indexOf(stop)));
    expect(stopped.end.reason).toBe("stop");
    const longer = await answer(engine, request(prompt, { maxTokens: 40, stop: [stop], minTokens: 30 }));
    expect(longer.end.numNewTokens).toBeGreaterThanOrEqual(30);
  });

  it("fails what is under way when a step fails, and refuses what comes after", async () => {
    const runner = new FakeRunner({ numBlocks: 9, blockSize: 4, vocabSize });
    let numSteps = 0;
    const engine = new EngineCore({
      runner: {
        execute(step) {
          if (++numSteps === 3) throw new RangeError("the card fell out");
          return runner.execute(step);
        },
        dispose: () => {},
        [Symbol.dispose]: () => {},
      },
      tokenizer,
      info: noModelInfo({ maxContext: 36, vocabSize }),
      scheduler: { numBlocks: 9, blockSize: 4, maxStepRows: 8, maxSequences: 2 },
      endTokens: [],
    });
    await expect(answer(engine, request([1, 2], { maxTokens: 9 }))).rejects.toThrow("the card fell out");
    await expect(answer(engine, request([1, 2], { maxTokens: 9 }))).rejects.toThrow("the engine failed");
    await engine[Symbol.asyncDispose]();
  });
});
