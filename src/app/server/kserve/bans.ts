/**
 * Words that must not be said and n-grams that must not come again, for engines that know neither: tokens are drawn as they are, and
 * where one would complete what is banned, the sequence goes on from before it with the banned tokens ruled out. For greedy decoding
 * and for sampling alike this gives the distribution without the banned tokens: a draw that is kept has its own probability, and one
 * that is not is drawn again from the rest.
 */
import { TextStream } from "../../../infer/index.ts";
import type { Engine, EngineEvent, EngineRequest } from "../../../infer/index.ts";
import type { Tokenizer } from "../../../text/index.ts";
import type { ResolvedModel } from "../servedModel.ts";

export interface Bans {
  /** Sequences of tokens that must not appear in the answer. */
  sequences: readonly (readonly number[])[];
  /** No run of so many tokens comes twice, the prompt counted; 0: off. */
  ngramSize: number;
}

/** The tokens of words, alone and after a space. */
export function bansOf(tokenizer: Tokenizer, words: readonly string[], ngramSize: number): Bans {
  const spellings = words.flatMap((word) => [word, ` ${word}`]);
  const byText = new Map(
    spellings.map((text) => [...tokenizer.encode(text)]).map((ids) => [ids.join(" "), ids]),
  );
  return { sequences: [...byText.values()].filter((ids) => ids.length > 0), ngramSize };
}

/** The tokens that must not follow `prompt` and `answer`. */
export function bannedTokens(bans: Bans, prompt: readonly number[], answer: readonly number[]): Set<number> {
  const banned = new Set<number>();
  for (const sequence of bans.sequences) {
    const before = sequence.slice(0, -1);
    const start = answer.length - before.length;
    if (start >= 0 && before.every((id, i) => answer[start + i] === id)) banned.add(sequence[before.length]);
  }
  const { ngramSize } = bans;
  if (ngramSize === 0) return banned;
  const all = [...prompt, ...answer];
  const tail = all.length - (ngramSize - 1);
  for (let i = 0; i < tail; i++) {
    let length = 0;
    while (length < ngramSize - 1 && all[i + length] === all[tail + length]) length++;
    if (length === ngramSize - 1) banned.add(all[i + length]);
  }
  return banned;
}

/** Far below any logit. */
const never = -1e9;

/** The model with an engine that obeys the bans; the model itself where there are none. */
export function withBans(resolved: ResolvedModel, bans: Bans): ResolvedModel {
  if (bans.sequences.length === 0 && bans.ngramSize === 0) return resolved;
  const { model, adapter } = resolved;
  const { engine, tokenizer } = model;
  const obeying: Engine = {
    info: engine.info,
    generate: (request, signal) => generateObeying({ engine, tokenizer, bans }, request, signal),
    embed: (prompts, pooling) => engine.embed(prompts, pooling),
    statistics: () => engine.statistics(),
    loadAdapter: (name, folder) => engine.loadAdapter(name, folder),
    unloadAdapter: (name) => engine.unloadAdapter(name),
    // The engine belongs to the server.
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
  return { model: { ...model, engine: obeying }, adapter };
}

interface Obeying {
  engine: Engine;
  tokenizer: Tokenizer;
  bans: Bans;
}

type TokenEvent = Extract<EngineEvent, { type: "token" }>;
type EndEvent = Extract<EngineEvent, { type: "end" }>;

async function* generateObeying(
  { engine, tokenizer, bans }: Obeying,
  request: EngineRequest,
  signal: AbortSignal | undefined,
): AsyncGenerator<EngineEvent> {
  const { prompt, sampling } = request;
  const stream = new TextStream(tokenizer.createDecoder({ startsText: false }), sampling.stop);
  const answer: number[] = [];
  let numCachedTokens: number | undefined;
  let end: EndEvent | undefined;
  let banned = new Set<number>();
  while (end === undefined) {
    const part = continued(request, answer, banned);
    let isCut = false;
    for await (const event of engine.generate(part, signal)) {
      if (event.type === "prompt") {
        if (answer.length === 0 && banned.size === 0) yield event;
        continue;
      }
      if (event.type === "end") {
        numCachedTokens ??= event.numCachedTokens;
        end = isOver(event, answer.length, sampling.maxTokens) ? event : undefined;
        break;
      }
      const forbidden = bannedTokens(bans, prompt, answer);
      if (forbidden.has(event.token) && !banned.has(event.token)) {
        banned = forbidden;
        isCut = true;
        break;
      }
      banned = new Set();
      answer.push(event.token);
      yield { ...event, text: isEnd(event, request, tokenizer) ? "" : stream.push(event.token) };
      if (stream.isStopped) {
        end = { ...emptyEnd, reason: "stop" };
        break;
      }
    }
    if (!isCut && end === undefined && answer.length >= sampling.maxTokens)
      end = { ...emptyEnd, reason: "length" };
  }
  yield {
    ...end,
    text: stream.flush(),
    numPromptTokens: prompt.length,
    numCachedTokens: numCachedTokens ?? 0,
    numNewTokens: answer.length,
  };
}

const emptyEnd: EndEvent = {
  type: "end",
  reason: "length",
  text: "",
  numPromptTokens: 0,
  numCachedTokens: 0,
  numNewTokens: 0,
};

const redrawSeeds = 2 ** 48;

/** The request from where the answer is. With tokens ruled out it goes one token far: after it others are banned. */
function continued(
  request: EngineRequest,
  answer: readonly number[],
  banned: ReadonlySet<number>,
): EngineRequest {
  const { prompt, sampling, promptLogprobs } = request;
  const rest = sampling.maxTokens - answer.length;
  return {
    ...request,
    prompt: [...prompt, ...answer],
    promptLogprobs: answer.length === 0 && banned.size === 0 ? promptLogprobs : undefined,
    sampling: {
      ...sampling,
      // Stop strings are looked for in the whole answer, here.
      stop: [],
      // Draws of one seed are numbered from its beginning: a later part must not repeat an earlier one's, nor a second draw the first.
      seed: sampling.seed + answer.length + (banned.size > 0 ? redrawSeeds : 0),
      maxTokens: banned.size > 0 ? 1 : rest,
      minTokens: Math.max(0, Math.min(sampling.minTokens - answer.length, banned.size > 0 ? 1 : rest)),
      logitBias: [...sampling.logitBias, ...[...banned].map((token): [number, number] => [token, never])],
    },
  };
}

function isOver(end: EndEvent, numTokens: number, maxTokens: number): boolean {
  return end.reason !== "length" || numTokens >= maxTokens;
}

function isEnd({ token }: TokenEvent, { endTokens = [] }: EngineRequest, tokenizer: Tokenizer): boolean {
  return token === tokenizer.eosId || endTokens.includes(token);
}
