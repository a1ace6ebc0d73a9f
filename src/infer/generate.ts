/**
 * Generates token ids for a batch of prompts: reads the prompts, then decodes all together, dropping sequences as they end. One
 * step runs ahead of the host while no sequence has ended and none needs its history.
 */
import { NautilusError } from "../base/index.ts";
import type { DrawnTokens, ModelRunner, PendingTokens } from "./runner.ts";
import { hasPenalties } from "./sampling.ts";
import type { SamplingOptions } from "./sampling.ts";
import type { RunnerSequence } from "./stepInputs.ts";

export interface TokenRequest {
  prompt: readonly number[];
  sampling: SamplingOptions;
  /** Tokens that end the sequence; they are reported and not continued. */
  endTokens: readonly number[];
}

export type FinishReason = "length" | "end";

export interface TokenEvent {
  /** Index of the request. */
  request: number;
  token: number;
  logprob: number;
  /** Set with the last token. */
  finishReason: FinishReason | undefined;
}

interface Active extends RunnerSequence {
  request: number;
  history: number[];
  numNew: number;
  finishReason: FinishReason | undefined;
}

/** Tells the generator to end a request early (a stop string was seen); its next token is not drawn. */
export type StopCheck = (request: number) => boolean;

/**
 * Tokens of all requests as they are drawn, one event a token. Throws NautilusError when a prompt does not fit the context or the
 * cache.
 */
export async function* generateTokens(
  runner: ModelRunner,
  requests: readonly TokenRequest[],
  isStopped: StopCheck = () => false,
): AsyncGenerator<TokenEvent> {
  const active: Active[] = [];
  const { maxContext } = runner.options;
  const take = (sequence: Active, drawn: DrawnTokens, index: number): TokenEvent => {
    const { endTokens } = requests[sequence.request];
    return accept(sequence, {
      token: drawn.tokens[index],
      logprob: drawn.logprobs[index],
      endTokens,
      maxContext,
    });
  };
  const stillRunning = (sequences: readonly Active[]): Active[] =>
    sequences.filter(({ finishReason, request }) => finishReason === undefined && !isStopped(request));
  try {
    for (const [request, { prompt, sampling }] of requests.entries())
      active.push(admit(runner, request, { prompt, sampling }));
    const first = runner.prompt(active.map((sequence) => ({ sequence, tokens: sequence.history })));
    for (const [index, sequence] of active.entries()) yield take(sequence, first, index);
    let running = stillRunning(active);
    let ahead: PendingTokens | undefined;
    while (running.length > 0) {
      const pending = ahead ?? decodeFresh(runner, running);
      ahead = canRunAhead(running, maxContext) ? runner.decode(running, {}) : undefined;
      const drawn = pending.wait();
      for (const [index, sequence] of running.entries()) yield take(sequence, drawn, index);
      const next = stillRunning(running);
      if (next.length !== running.length && ahead !== undefined) {
        // The step ahead was drawn for sequences that have ended: it is thrown away, and the others draw again.
        ahead.wait();
        ahead = undefined;
        for (const sequence of next) {
          sequence.numCached--;
          sequence.numDrawn--;
        }
      }
      running = next;
      await new Promise((resolve) => setImmediate(resolve));
    }
  } finally {
    for (const sequence of active) runner.blocks.give(sequence.blocks);
  }
}

function admit(
  runner: ModelRunner,
  request: number,
  { prompt, sampling }: Pick<TokenRequest, "prompt" | "sampling">,
): Active {
  const { maxContext } = runner.options;
  if (prompt.length === 0)
    throw new NautilusError("generate", "expected a prompt of at least one token, got none");
  if (prompt.length >= maxContext) {
    throw new NautilusError(
      "generate",
      `expected a prompt shorter than the context of ${maxContext} tokens, got ${prompt.length}`,
      {
        hint: "shorten the prompt",
      },
    );
  }
  // One more for the step that runs ahead.
  const numTokens = Math.min(maxContext, prompt.length + sampling.maxTokens + 1);
  return {
    request,
    blocks: runner.blocks.take(runner.blocksFor(numTokens)),
    sampling,
    numCached: 0,
    numDrawn: 0,
    history: [...prompt],
    numNew: 0,
    finishReason: undefined,
  };
}

function decodeFresh(runner: ModelRunner, running: readonly Active[]): PendingTokens {
  const histories = running.map(({ history }) => history);
  return runner.decode(running, {
    tokens: histories.map((history) => history[history.length - 1]),
    histories,
  });
}

/** Whether the next step surely follows: nobody needs the drawn token on the host, and nobody ends by length. */
function canRunAhead(running: readonly Active[], maxContext: number): boolean {
  return running.every(
    ({ sampling, numNew, numCached }) =>
      !hasPenalties(sampling) && numNew + 2 <= sampling.maxTokens && numCached + 1 < maxContext,
  );
}

/** Takes a drawn token into the sequence. */
function accept(
  sequence: Active,
  {
    token,
    logprob,
    endTokens,
    maxContext,
  }: { token: number; logprob: number; endTokens: readonly number[]; maxContext: number },
): TokenEvent {
  sequence.history.push(token);
  sequence.numNew++;
  const isLong = sequence.numNew >= sequence.sampling.maxTokens || sequence.history.length >= maxContext;
  if (sequence.sampling.stopAtEnd && endTokens.includes(token)) sequence.finishReason = "end";
  else if (isLong) sequence.finishReason = "length";
  return { request: sequence.request, token, logprob, finishReason: sequence.finishReason };
}
