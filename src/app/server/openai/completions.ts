/** `POST /v1/completions`. */
import { completionRequestSchema } from "../../api/openai/index.ts";
import type { Completion, CompletionChunk, CompletionRequest } from "../../api/openai/index.ts";
import type { EngineRequest } from "../../../infer/index.ts";
import { readJsonBody } from "../http/body.ts";
import type { HttpApp, HttpContext } from "../http/environment.ts";
import { parseBody } from "../http/parse.ts";
import { Refusal } from "../refusal.ts";
import { runRequest } from "../runRequest.ts";
import type { RunEvent } from "../runRequest.ts";
import { resolveModel } from "../serverContext.ts";
import type { ServerContext } from "../serverContext.ts";
import type { ResolvedModel } from "../servedModel.ts";
import { secondsNow, streamAnswer, UsageCounter } from "./answer.ts";
import { CompletionWriter, joinPieces } from "./completionWriter.ts";
import type { CompletionPiece } from "./completionWriter.ts";
import { encodePrompts, roomFor } from "./prompts.ts";
import { constraintOf, newSeed, samplingOf } from "./sampling.ts";
import type { Dialect } from "./sampling.ts";

/** Tokens generated where a request does not say how many. */
const defaultMaxTokens: Readonly<Record<Dialect, number>> = { openai: 16, nemo: 512 };

/** With a slash at its end the route is that of NeMo's own service, and its defaults hold. */
export function mountCompletions(app: HttpApp, server: ServerContext): void {
  app.post("/v1/completions", (c) => complete(server, c, "openai"));
  app.post("/v1/completions/", (c) => complete(server, c, "nemo"));
}

async function complete(server: ServerContext, c: HttpContext, dialect: Dialect): Promise<Response> {
  const request = parseBody("completions", completionRequestSchema, await readJsonBody(server, c));
  const plan = planOf(server, request, dialect);
  const context = c.get("request");
  if (server.options.log.prompts) context.facts.prompts = plan.writers.map(({ text }) => text);
  const events = await runRequest(server, context, { model: plan.model, requests: plan.requests });
  return request.stream
    ? streamed(c, plan, { events, includesUsage: request.stream_options?.include_usage === true })
    : c.json(await whole(context.id, plan, events));
}

/** A request worked out: what the engine is asked, and how its events become choices. */
interface Plan {
  model: ResolvedModel;
  /** For each prompt `sequencesPerPrompt` of them. */
  requests: EngineRequest[];
  writers: { text: string; make: () => CompletionWriter }[];
  sequencesPerPrompt: number;
  /** Of which so many are given. */
  numChoices: number;
  name: string;
}

function checkCounts({
  n,
  best_of: bestOf = n,
  stream,
  suffix,
  max_tokens: maxTokens,
  echo,
}: CompletionRequest): number {
  const refuse = (parameter: string, message: string): never => {
    throw new Refusal(400, `completions: ${parameter}: ${message}`, { parameter, reason: "invalid_value" });
  };
  if (suffix !== undefined && suffix !== "")
    refuse("suffix", "expected none, got one: these models do not fill in");
  if (bestOf < n) refuse("best_of", `expected at least n (${n}), got ${bestOf}`);
  if (stream && bestOf > n)
    refuse("best_of", "expected n of it in a stream, got more: they cannot be compared");
  if (maxTokens === 0 && !echo) refuse("max_tokens", "expected at least 1, or echo, got 0");
  return bestOf;
}

function planOf(server: ServerContext, request: CompletionRequest, dialect: Dialect): Plan {
  const model = resolveModel(server, request.model);
  const { tokenizer, engine } = model.model;
  const sequencesPerPrompt = checkCounts(request);
  const prompts = encodePrompts(model.model, request.prompt, {
    parameter: "prompt",
    truncateTo: request.truncate_prompt_tokens,
    addBeginning: request.add_special_tokens,
  });
  const seed = request.seed ?? newSeed();
  const constraint = constraintOf(request);
  const requests: EngineRequest[] = [];
  const writers: Plan["writers"] = [];
  for (const [i, prompt] of prompts.entries()) {
    const room = roomFor(model.model, prompt, { wanted: request.max_tokens, parameter: "prompt" });
    const maxTokens = request.max_tokens ?? Math.min(room, defaultMaxTokens[dialect]);
    const text = promptText(request, i) ?? tokenizer.decode(prompt, { specialTokens: "show" });
    for (let sample = 0; sample < sequencesPerPrompt; sample++) {
      const { sampling, endTokens } = samplingOf(request, {
        maxTokens,
        seed: seed + sample,
        vocabSize: engine.info.vocabSize,
        dialect,
      });
      requests.push({
        prompt,
        sampling,
        endTokens,
        numLogprobs: request.logprobs,
        promptLogprobs: request.echo ? request.logprobs : undefined,
        constraint,
        priority: request.priority,
      });
      const echo = request.echo ? { ids: prompt, text } : undefined;
      const make = () => new CompletionWriter({ tokenizer, echo, numLogprobs: request.logprobs });
      writers.push({ text, make });
    }
  }
  const name = request.model ?? model.model.name;
  return { model, requests, writers, sequencesPerPrompt, numChoices: request.n, name };
}

/** The text of a prompt as it came, unless it was cut or came as ids. */
function promptText(
  { prompt, truncate_prompt_tokens: cut }: CompletionRequest,
  i: number,
): string | undefined {
  if (cut !== undefined) return undefined;
  const own = typeof prompt === "string" ? prompt : prompt[i];
  return typeof own === "string" ? own : undefined;
}

function toChoice(index: number, { text, logprobs, finishReason }: CompletionPiece) {
  return { index, text, logprobs, finish_reason: finishReason };
}

async function whole(id: string, plan: Plan, events: AsyncIterable<RunEvent>): Promise<Completion> {
  const writers = plan.writers.map(({ make }) => make());
  const pieces: CompletionPiece[][] = writers.map(() => []);
  const counter = new UsageCounter(plan.sequencesPerPrompt);
  for await (const { sequence, event } of events) {
    pieces[sequence].push(writers[sequence].push(event));
    if (event.type === "end") counter.add(sequence, event);
  }
  const numPrompts = writers.length / plan.sequencesPerPrompt;
  const chosen = Array.from({ length: numPrompts }, (_, prompt) => {
    const own = Array.from(
      { length: plan.sequencesPerPrompt },
      (_, i) => prompt * plan.sequencesPerPrompt + i,
    );
    if (plan.numChoices < own.length) own.sort((a, b) => writers[b].meanLogprob - writers[a].meanLogprob);
    return own.slice(0, plan.numChoices);
  });
  return {
    id: `cmpl-${id}`,
    object: "text_completion",
    created: secondsNow(),
    model: plan.name,
    choices: chosen.flat().map((sequence, index) => toChoice(index, joinPieces(pieces[sequence]))),
    usage: counter.usage,
  };
}

function streamed(
  c: HttpContext,
  plan: Plan,
  { events, includesUsage }: { events: AsyncIterableIterator<RunEvent>; includesUsage: boolean },
): Response {
  const writers = plan.writers.map(({ make }) => make());
  const counter = new UsageCounter(plan.sequencesPerPrompt);
  const envelope = {
    id: `cmpl-${c.get("request").id}`,
    object: "text_completion" as const,
    created: secondsNow(),
    model: plan.name,
  };
  return streamAnswer<CompletionChunk>(c, events, {
    chunksOf: ({ sequence, event }) => {
      const piece = writers[sequence].push(event);
      if (event.type === "end") counter.add(sequence, event);
      const saysSomething =
        piece.text !== "" || piece.finishReason !== null || (piece.logprobs?.tokens.length ?? 0) > 0;
      if (!saysSomething) return [];
      return [
        { ...envelope, choices: [toChoice(sequence, piece)], ...(includesUsage ? { usage: null } : {}) },
      ];
    },
    last: () => (includesUsage ? [{ ...envelope, choices: [], usage: counter.usage }] : []),
  });
}
