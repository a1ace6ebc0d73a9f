/**
 * HTTP as the hub wants it: the token goes to the hub's own address and nowhere else, redirects are followed by hand, silence ends a
 * request, and what may pass (a broken connection, a busy server) is tried again.
 */
import { setTimeout as delay } from "node:timers/promises";
import { HubError, messageOf } from "../../base/index.ts";
import { refusal } from "./refusals.ts";
import type { HubSettings } from "./settings.ts";

/** May pass by itself: worth another attempt. */
export class PassingHubError extends HubError {
  override readonly code = "hub-passing";
  /** What the server asked to wait, if it did. */
  readonly retryAfterMs: number | undefined;
  constructor(message: string, details: { cause?: unknown; hint?: string; retryAfterMs?: number } = {}) {
    super("hub", message, details);
    this.retryAfterMs = details.retryAfterMs;
  }
}

export interface HubRequest {
  method?: "GET" | "HEAD";
  headers?: Readonly<Record<string, string>>;
  signal?: AbortSignal;
  /** What is asked for, for messages, e.g. "config.json". */
  wanted: string;
  /** False: an answer that points to another origin is given back as it is. */
  followsAway?: boolean;
}

export interface HubAnswer {
  response: Response;
  /** Address that answered. */
  url: string;
  /** The headers of every answer on the way, the first that set one winning. */
  headers: Headers;
  /** Where a redirect to another origin leads, when it was not followed. */
  away: string | undefined;
}

const usualAttempts = 5;
const maxRedirects = 8;
const maxWaitMs = 5 * 60_000;
const userAgent = "nautilus-llm";

export interface RetryOptions {
  signal?: AbortSignal;
  maxAttempts?: number;
  /** Whether the last attempt brought something: the count of attempts starts anew. */
  hasProgressed?: () => boolean;
  onRetry?: (error: PassingHubError) => void;
}

export class Transport {
  readonly settings: HubSettings;
  readonly #origin: string;

  constructor(settings: HubSettings) {
    this.settings = settings;
    this.#origin = new URL(settings.endpoint).origin;
  }

  /** One request with its redirects. Throws HubError, PassingHubError where another attempt may help. */
  async request(start: string, request: HubRequest): Promise<HubAnswer> {
    const headers = new Headers();
    let url = start;
    for (let numRedirects = 0; numRedirects <= maxRedirects; numRedirects++) {
      const response = await this.#send(url, request);
      for (const [name, value] of response.headers) if (!headers.has(name)) headers.set(name, value);
      const location = response.status >= 300 && response.status < 400 && response.headers.get("location");
      if (location === false || location === null || location === "") {
        if (response.ok) return { response, url, headers, away: undefined };
        throw await this.#refused(response, url, request);
      }
      await response.body?.cancel();
      const target = URL.parse(location, url);
      if (target === null || !/^https?:$/.test(target.protocol))
        throw new HubError("hub", `${request.wanted}: expected a redirect to an address, got '${location}'`);
      if (target.origin !== this.#origin && request.followsAway === false)
        return { response, url, headers, away: target.href };
      url = target.href;
    }
    throw new HubError("hub", `${request.wanted}: expected at most ${maxRedirects} redirects, got more`);
  }

  async #send(url: string, { method = "GET", headers, signal, wanted }: HubRequest): Promise<Response> {
    const { answerTimeoutMs, token } = this.settings;
    const isHub = new URL(url).origin === this.#origin;
    const timeout = new AbortController();
    const timer = setTimeout(() => timeout.abort(), answerTimeoutMs);
    try {
      return await fetch(url, {
        method,
        redirect: "manual",
        signal: signal === undefined ? timeout.signal : AbortSignal.any([timeout.signal, signal]),
        headers: {
          "user-agent": userAgent,
          // A compressed answer would be counted in other bytes than its file.
          "accept-encoding": "identity",
          ...(isHub && token !== undefined ? { authorization: `Bearer ${token}` } : {}),
          ...headers,
        },
      });
    } catch (error) {
      signal?.throwIfAborted();
      const got = timeout.signal.aborted ? `none within ${answerTimeoutMs / 1000} s` : `'${reasonOf(error)}'`;
      throw new PassingHubError(`${wanted}: expected an answer from ${new URL(url).origin}, got ${got}`, {
        cause: error,
        hint: "check the connection and HF_ENDPOINT, or set HF_HUB_OFFLINE=1 to use what was pulled before",
      });
    } finally {
      clearTimeout(timer);
    }
  }

  async #refused(response: Response, url: string, { wanted }: HubRequest): Promise<HubError> {
    if (response.status === 429 || response.status === 408 || response.status >= 500) {
      await response.body?.cancel();
      const seconds = Number(response.headers.get("retry-after") ?? Number.NaN);
      return new PassingHubError(
        `${wanted}: expected an answer from ${new URL(url).origin}, got HTTP ${response.status}`,
        {
          hint: response.status === 429 ? "the hub limits requests: wait some minutes" : "try again later",
          retryAfterMs: seconds >= 0 ? seconds * 1000 : undefined,
        },
      );
    }
    if (new URL(url).origin !== this.#origin) {
      await response.body?.cancel();
      // Signed addresses of the storage behind the hub expire; the next attempt asks the hub for a new one.
      return new PassingHubError(
        `${wanted}: expected bytes from ${new URL(url).origin}, got HTTP ${response.status}`,
      );
    }
    return refusal(response, { wanted, url, settings: this.settings });
  }

  /** Runs `body` until it succeeds, fails for good, or `maxAttempts` in a row brought nothing. */
  async retrying<Result>(
    body: () => Promise<Result>,
    { signal, maxAttempts = usualAttempts, hasProgressed = () => false, onRetry }: RetryOptions = {},
  ): Promise<Result> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await body();
      } catch (error) {
        if (!(error instanceof PassingHubError)) throw error;
        if (hasProgressed()) attempt = 1;
        if (attempt >= maxAttempts) throw error;
        onRetry?.(error);
        const backoffMs = this.settings.retryDelayMs * 2 ** (attempt - 1);
        await delay(Math.min(maxWaitMs, error.retryAfterMs ?? backoffMs), undefined, { signal });
      }
    }
  }
}

/** The innermost reason of a failed fetch, e.g. "getaddrinfo ENOTFOUND hub". */
export function reasonOf(error: unknown): string {
  let inner = error;
  while (inner instanceof Error && inner.cause instanceof Error) inner = inner.cause;
  const text = messageOf(inner);
  if (text !== "") return text;
  return inner instanceof Error && "code" in inner ? String(inner.code) : "a broken connection";
}
