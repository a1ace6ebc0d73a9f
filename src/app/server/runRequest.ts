/**
 * The one path from any protocol to an engine: admission, cancellation, metrics. Knows nothing of protocols.
 * Invariant: when the events end, are left, or fail, every sequence of the run has ended in its engine and given back its slot.
 */
import { performance } from "node:perf_hooks";
import type { EngineEvent, EngineRequest } from "../../infer/index.ts";
import { EventQueue } from "./eventQueue.ts";
import { Refusal } from "./refusal.ts";
import type { RequestContext } from "./requestContext.ts";
import type { ResolvedModel } from "./servedModel.ts";
import type { ServerContext } from "./serverContext.ts";

/** An event of one of a run's sequences, which are numbered in the order of the requests. */
export interface RunEvent {
  sequence: number;
  event: EngineEvent;
}

/**
 * Runs engine requests side by side. Resolves when the first event is there, so that what is wrong from the start can still become a
 * status; the events of one sequence come in order, each ends with one of type "end". Throws Refusal (429, 503, 504, 499),
 * RequestError, EngineFailedError, before or between events.
 */
export async function runRequest(
  server: ServerContext,
  context: RequestContext,
  { model, requests }: { model: ResolvedModel; requests: readonly EngineRequest[] },
): Promise<AsyncIterableIterator<RunEvent>> {
  if (server.isDraining)
    throw new Refusal(503, "expected a running server, got one that is ending", { retryAfterSeconds: 10 });
  if (requests.length > server.options.maxSequencesPerRequest) {
    throw new Refusal(
      400,
      `expected at most ${server.options.maxSequencesPerRequest} sequences a request, got ${requests.length}`,
    );
  }
  server.admission.check(requests.length);
  context.facts.model = model.model.name;
  context.facts.numSequences = requests.length;
  const events = merged(server, context, { model, requests });
  return peeked(events, await events.next());
}

/** The events with the first one, already taken, before them. A generator would not clean up when left before its first step. */
function peeked(
  events: AsyncGenerator<RunEvent, void, undefined>,
  first: IteratorResult<RunEvent, void>,
): AsyncIterableIterator<RunEvent> {
  let isFirst = true;
  return {
    [Symbol.asyncIterator]() {
      return this;
    },
    next: () => {
      if (!isFirst) return events.next();
      isFirst = false;
      return Promise.resolve(first);
    },
    return: () => events.return(),
  };
}

async function* merged(
  server: ServerContext,
  context: RequestContext,
  { model, requests }: { model: ResolvedModel; requests: readonly EngineRequest[] },
): AsyncGenerator<RunEvent, void, undefined> {
  const queue = new EventQueue<RunEvent>();
  const controller = new AbortController();
  const onAbort = (): void => controller.abort(context.signal.reason);
  context.signal.addEventListener("abort", onAbort, { once: true });
  if (context.signal.aborted) onAbort();
  const sequences = requests.map((request, sequence) =>
    runSequence(server, context, {
      model,
      request,
      signal: controller.signal,
      onEvent: (event) => queue.push({ sequence, event }),
    }),
  );
  const all = Promise.all(sequences).then(
    () => queue.end(),
    (error: unknown) => queue.fail(error),
  );
  try {
    yield* queue;
  } finally {
    context.signal.removeEventListener("abort", onAbort);
    controller.abort(new Refusal(499, "the answer was given up"));
    await Promise.allSettled([all, ...sequences]);
  }
}

async function runSequence(
  server: ServerContext,
  context: RequestContext,
  {
    model: { model, adapter },
    request,
    signal,
    onEvent,
  }: {
    model: ResolvedModel;
    request: EngineRequest;
    signal: AbortSignal;
    onEvent: (event: EngineEvent) => void;
  },
): Promise<void> {
  using _slot = await server.admission.enter(signal);
  const label = { model: model.name };
  const { metrics } = server;
  const queueMs = performance.now() - context.arrivedMs;
  metrics.queueSeconds.observe(label, queueMs / 1000);
  context.facts.queueMs = Math.max(context.facts.queueMs ?? 0, Number(queueMs.toFixed(3)));
  let lastMs: number | undefined;
  for await (const event of model.engine.generate({ ...request, adapter }, signal)) {
    if (event.type === "token") {
      const nowMs = performance.now();
      const sinceMs = nowMs - (lastMs ?? context.arrivedMs);
      (lastMs === undefined ? metrics.firstTokenSeconds : metrics.interTokenSeconds).observe(
        label,
        sinceMs / 1000,
      );
      if (lastMs === undefined) context.facts.firstTokenMs ??= Number(sinceMs.toFixed(2));
      lastMs = nowMs;
      metrics.countToken(model.name);
    } else if (event.type === "end") {
      count(server, context, { model: model.name, end: event });
      if (event.reason === "aborted") throw abortReason(signal);
    }
    onEvent(event);
  }
}

function count(
  { metrics }: ServerContext,
  { facts }: RequestContext,
  { model, end }: { model: string; end: Extract<EngineEvent, { type: "end" }> },
): void {
  metrics.promptTokens.inc({ model }, end.numPromptTokens);
  metrics.cachedPromptTokens.inc({ model }, end.numCachedTokens);
  metrics.sequences.inc({ model, reason: end.reason });
  facts.numPromptTokens = (facts.numPromptTokens ?? 0) + end.numPromptTokens;
  facts.numCachedTokens = (facts.numCachedTokens ?? 0) + end.numCachedTokens;
  facts.numNewTokens = (facts.numNewTokens ?? 0) + end.numNewTokens;
}

function abortReason(signal: AbortSignal): Error {
  if (signal.reason instanceof Refusal) return signal.reason;
  return new Refusal(503, "expected an answer, got one that the engine gave up", { cause: signal.reason });
}

/** Embeddings by the same path. Throws as `runRequest` does. */
export async function embedRequest(
  server: ServerContext,
  context: RequestContext,
  {
    model: { model },
    prompts,
    pooling,
  }: { model: ResolvedModel; prompts: readonly (readonly number[])[]; pooling: "mean" | "last" },
): Promise<Float32Array[]> {
  server.admission.check(1);
  context.facts.model = model.name;
  context.facts.numSequences = prompts.length;
  const numPromptTokens = prompts.reduce((total, prompt) => total + prompt.length, 0);
  context.facts.numPromptTokens = numPromptTokens;
  using _slot = await server.admission.enter(context.signal);
  const vectors = await model.engine.embed(prompts, pooling);
  server.metrics.promptTokens.inc({ model: model.name }, numPromptTokens);
  return vectors;
}
