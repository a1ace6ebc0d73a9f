/** JSON requests to a model server: tried again when the server is busy or unreachable, refused in one sentence. */
import { NautilusError, messageOf } from "../../base/index.ts";
import type { ErrorDetails } from "../../base/index.ts";

export interface PostOptions {
  apiKey?: string | undefined;
  signal?: AbortSignal | undefined;
  numAttempts?: number;
  timeoutMs?: number;
}

/** A model server refused, or did not answer. */
export class ServerError extends NautilusError {
  override readonly code = "server";
  readonly status: number | undefined;

  constructor(message: string, status: number | undefined, details: ErrorDetails = {}) {
    super("client", message, details);
    this.status = status;
  }
}

/** The answer's JSON. Throws ServerError. */
export async function postJson(url: string, body: unknown, options: PostOptions = {}): Promise<unknown> {
  const { apiKey, signal, numAttempts = 3, timeoutMs = 600_000 } = options;
  for (let attempt = 1; ; attempt++) {
    try {
      const timeout = AbortSignal.timeout(timeoutMs);
      const response = await fetch(url, {
        method: "POST",
        headers: {
          "content-type": "application/json",
          ...(apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` }),
        },
        body: JSON.stringify(body),
        signal: signal === undefined ? timeout : AbortSignal.any([signal, timeout]),
      });
      if (response.ok) return await response.json();
      const text = (await response.text()).slice(0, 300);
      throw new ServerError(
        `expected an answer from ${url}, got status ${response.status}: ${text}`,
        response.status,
      );
    } catch (error) {
      const failure =
        error instanceof ServerError
          ? error
          : new ServerError(`expected an answer from ${url}, got ${messageOf(error)}`, undefined, {
              cause: error,
            });
      const isFinal = failure.status !== undefined && failure.status < 500 && failure.status !== 429;
      if (signal?.aborted === true || isFinal || attempt >= numAttempts) throw failure;
      await new Promise((resolve) => setTimeout(resolve, 500 * 2 ** attempt));
    }
  }
}
