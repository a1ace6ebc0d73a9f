/** Bans against the plain rule: at each step the likeliest token that is not banned. */
import fc from "fast-check";
import { expect, it } from "vitest";
import { RandomStream } from "../../../base/index.ts";
import { parseSampling } from "../../../infer/index.ts";
import type { Engine, EngineEvent, EngineRequest } from "../../../infer/index.ts";
import type { Tokenizer } from "../../../text/index.ts";
import type { ServedModel } from "../servedModel.ts";
import { type Bans, bannedTokens, withBans } from "./bans.ts";

const seed = 11;
const vocabSize = 6;

/** Logits that follow from the last two tokens, so that greedy answers run in circles. */
function logitsOf(ids: readonly number[]): number[] {
  const random = new RandomStream(ids.slice(-2).reduce((hash, id) => hash * 31 + id + 1, 7));
  return Array.from({ length: vocabSize }, () => random.nextFloat());
}

const likeliest = (logits: readonly number[]): number => logits.indexOf(Math.max(...logits));

async function* generate({ prompt, sampling }: EngineRequest): AsyncGenerator<EngineEvent> {
  const ids = [...prompt];
  for (let i = 0; i < sampling.maxTokens; i++) {
    const logits = logitsOf(ids);
    for (const [token, bias] of sampling.logitBias) logits[token] += bias;
    const token = likeliest(logits);
    ids.push(token);
    yield { type: "token", token, text: String(token), logprob: logits[token] };
  }
  const counts = { numPromptTokens: prompt.length, numCachedTokens: 0, numNewTokens: sampling.maxTokens };
  yield { type: "end", reason: "length", text: "", ...counts };
}

const tokenizer = {
  eosId: -1,
  createDecoder: () => ({ push: (id: number) => String(id), flush: () => "" }),
} as unknown as Tokenizer;
const model = { engine: { generate } as unknown as Engine, tokenizer } as ServedModel;

async function answerOf(
  prompt: number[],
  maxTokens: number,
  bans: Bans,
): Promise<{ tokens: number[]; text: string }> {
  const { engine } = withBans({ model, adapter: undefined }, bans).model;
  const tokens: number[] = [];
  let text = "";
  for await (const event of engine.generate({ prompt, sampling: parseSampling({ maxTokens, topK: 1 }) })) {
    if (event.type === "prompt") continue;
    text += event.text;
    if (event.type === "token") tokens.push(event.token);
    else
      expect(event).toMatchObject({
        reason: "length",
        numNewTokens: maxTokens,
        numPromptTokens: prompt.length,
      });
  }
  return { tokens, text };
}

function expected(prompt: number[], maxTokens: number, bans: Bans): number[] {
  const answer: number[] = [];
  while (answer.length < maxTokens) {
    const logits = logitsOf([...prompt, ...answer]);
    // Written out anew: by looking at what the answer would hold.
    const isBanned = (token: number): boolean => {
      const next = [...answer, token];
      const all = [...prompt, ...next];
      const ends = (list: number[], tail: readonly number[]): boolean =>
        tail.length <= list.length && tail.every((id, i) => list[list.length - tail.length + i] === id);
      if (bans.sequences.some((sequence) => ends(next, sequence))) return true;
      const gram = all.slice(-bans.ngramSize);
      return (
        bans.ngramSize > 0 &&
        all.length > bans.ngramSize &&
        Array.from({ length: all.length - bans.ngramSize }, (_, i) => all.slice(i, i + bans.ngramSize)).some(
          (other) => ends(other, gram),
        )
      );
    };
    const allowed = logits.map((logit, token) => (isBanned(token) ? logit - 1e9 : logit));
    answer.push(likeliest(allowed));
  }
  return answer;
}

it("gives the likeliest allowed tokens, for bad words and for n-grams", async () => {
  const token = fc.nat(vocabSize - 1);
  await fc.assert(
    fc.asyncProperty(
      fc.array(token, { minLength: 1, maxLength: 6 }),
      fc.integer({ min: 1, max: 24 }),
      fc.array(fc.array(token, { minLength: 1, maxLength: 3 }), { maxLength: 3 }),
      fc.constantFrom(0, 2, 3, 4),
      async (prompt, maxTokens, sequences, ngramSize) => {
        const bans = { sequences, ngramSize };
        const { tokens, text } = await answerOf(prompt, maxTokens, bans);
        expect(tokens).toEqual(expected(prompt, maxTokens, bans));
        expect(text).toBe(tokens.join(""));
      },
    ),
    { seed, numRuns: 300 },
  );
});

it("knows which tokens would complete what is banned", () => {
  const bans = { sequences: [[1], [2, 3], [4, 5, 0]], ngramSize: 0 };
  expect([...bannedTokens(bans, [9, 2], [])]).toEqual([1]);
  expect([...bannedTokens(bans, [], [2])]).toEqual([1, 3]);
  expect([...bannedTokens(bans, [], [4, 5])]).toEqual([1, 0]);
  expect([...bannedTokens({ sequences: [], ngramSize: 2 }, [1, 2], [3, 1])]).toEqual([2]);
  expect([...bannedTokens({ sequences: [], ngramSize: 1 }, [1], [3])]).toEqual([1, 3]);
});
