/** One request from its arrival to the end of its answer, whatever the protocol. */
import { randomUUID } from "node:crypto";
import type { Logger } from "./logging.ts";
import type { ServerContext } from "./serverContext.ts";
import { Refusal } from "./refusal.ts";

export type Protocol = "openai" | "kserve" | "grpc" | "other";

export interface RequestOrigin {
  /** The client's own id of the request, when it sent one. */
  id?: string | undefined;
  protocol: Protocol;
  /** The pattern of the route, not the path itself: it labels metrics. */
  route: string;
  /** Aborts when the client goes away. */
  signal?: AbortSignal | undefined;
}

/** What the log says of a request once it is known. */
export interface RequestFacts {
  model?: string;
  numSequences?: number;
  numPromptTokens?: number;
  numCachedTokens?: number;
  numNewTokens?: number;
  firstTokenMs?: number;
  /** From the request's arrival until the last of its sequences was handed to the engine. */
  queueMs?: number;
  /** What went wrong after the status was sent. */
  failure?: string;
  /** Only where prompts may be logged. */
  prompts?: readonly string[];
}

const idPattern = /^[\x21-\x7e]{1,128}$/;

export class RequestContext {
  readonly id: string;
  readonly protocol: Protocol;
  readonly route: string;
  readonly arrivedMs = performance.now();
  readonly facts: RequestFacts = {};
  readonly log: Logger;
  readonly #server: ServerContext;
  readonly #controller = new AbortController();
  readonly #timer: NodeJS.Timeout;
  readonly #outer: AbortSignal | undefined;
  readonly #onOuterAbort = (): void => this.abortGone();
  #isFinished = false;

  constructor(server: ServerContext, { id, protocol, route, signal }: RequestOrigin) {
    this.#server = server;
    this.id = id !== undefined && idPattern.test(id) ? id : randomUUID();
    this.protocol = protocol;
    this.route = route;
    this.log = server.log;
    this.#outer = signal;
    if (signal?.aborted === true) this.abortGone();
    else signal?.addEventListener("abort", this.#onOuterAbort, { once: true });
    const { requestTimeoutMs } = server.options;
    this.#timer = setTimeout(() => this.abort(tooLate(requestTimeoutMs)), requestTimeoutMs);
    this.#timer.unref();
    server.openRequests.add(this);
  }

  /** Aborts when the client goes away, time is up, or the server ends; its reason is a Refusal. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  abort(reason: Refusal): void {
    this.#controller.abort(reason);
  }

  /** The client went away. */
  abortGone(): void {
    this.abort(clientGone());
  }

  /** Ends the request: what still runs for it is aborted, and log and metrics hear of it. Calling it again does nothing. */
  finish(status: number | string, error?: unknown): void {
    if (this.#isFinished) return;
    this.#isFinished = true;
    clearTimeout(this.#timer);
    this.#outer?.removeEventListener("abort", this.#onOuterAbort);
    this.#server.openRequests.delete(this);
    const ms = performance.now() - this.arrivedMs;
    const { protocol, route } = this;
    this.#server.metrics.requests.inc({ protocol, route, status: String(status) });
    this.#server.metrics.requestSeconds.observe({ protocol, route }, ms / 1000);
    const line = { id: this.id, protocol, route, status, ms: Number(ms.toFixed(2)), ...this.facts };
    if (error === undefined) this.log.info(line, "request");
    else this.log.error({ ...line, err: error }, "request failed");
  }
}

function clientGone(): Refusal {
  return new Refusal(499, "the client went away before its answer was complete");
}

function tooLate(limitMs: number): Refusal {
  return new Refusal(504, `expected an answer within ${limitMs / 1000} s, got none`, {
    reason: "timeout",
    hint: "ask for fewer tokens, or raise --request-timeout",
  });
}
