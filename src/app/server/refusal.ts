/** What a server says no to, and which status every error of Nautilus stands for. The words are each protocol's own. */
import {
  ConfigError,
  DataError,
  EngineFailedError,
  NautilusError,
  OutOfMemoryError,
  RequestError,
  TokenizerError,
} from "../../base/index.ts";

export type RefusalStatus = 400 | 401 | 403 | 404 | 405 | 408 | 413 | 415 | 429 | 499 | 500 | 501 | 503 | 504;

export interface RefusalDetails {
  hint?: string;
  /** The parameter of the request that is meant. */
  parameter?: string;
  /** OpenAI's word for it, such as "model_not_found". */
  reason?: string;
  retryAfterSeconds?: number;
  cause?: unknown;
}

/** A request that the server does not carry out, with the HTTP status that says so. */
export class Refusal extends NautilusError {
  override readonly code = "refusal";
  readonly status: RefusalStatus;
  readonly parameter: string | undefined;
  readonly reason: string | undefined;
  readonly retryAfterSeconds: number | undefined;

  constructor(status: RefusalStatus, message: string, details: RefusalDetails = {}) {
    const { hint, cause } = details;
    super("server", message, { ...(hint === undefined ? {} : { hint }), cause });
    this.status = status;
    this.parameter = details.parameter;
    this.reason = details.reason;
    this.retryAfterSeconds = details.retryAfterSeconds;
  }
}

/** What clients are told of an error. */
export interface Failure {
  status: RefusalStatus;
  message: string;
  parameter: string | undefined;
  reason: string | undefined;
  retryAfterSeconds: number | undefined;
}

/** Seconds after which a client may try again when an engine restarts. */
const restartSeconds = 5;

/** The failure of anything thrown. What is not the client's to mend keeps its words for the log. */
export function failureOf(error: unknown): Failure {
  const none = { parameter: undefined, reason: undefined, retryAfterSeconds: undefined };
  if (error instanceof Refusal) {
    const { status, message, parameter, reason, retryAfterSeconds } = error;
    return { status, message, parameter, reason, retryAfterSeconds };
  }
  if (error instanceof EngineFailedError || error instanceof OutOfMemoryError)
    return { ...none, status: 503, message: error.message, retryAfterSeconds: restartSeconds };
  if (error instanceof RequestError || error instanceof ConfigError || error instanceof DataError)
    return { ...none, status: 400, message: error.message };
  if (error instanceof TokenizerError) return { ...none, status: 400, message: error.message };
  return { ...none, status: 500, message: "[server] a fault of the server; its log has the details" };
}
