/**
 * A client of the KServe v2 protocol over HTTP with binary tensors: Nautilus' server, Triton, and what PyTriton starts.
 * Sources: KServe, "Open Inference Protocol"; Triton, "Binary Tensor Data Extension", "Model Configuration Extension".
 */
import { setTimeout as delay } from "node:timers/promises";
import { z } from "zod";
import { messageOf, parseConfig } from "../../base/index.ts";
import {
  type Datatype,
  encodeInferRequest,
  fromConfigName,
  headerLengthName,
  type InferRequest,
  type InferResponse,
  parseHeaderLength,
  parseInferResponse,
} from "../kserve/index.ts";
import { QueryError } from "./queryError.ts";

export interface TensorDescription {
  name: string;
  datatype: Datatype | undefined;
  isOptional: boolean;
}

/** What a query needs of a model's configuration. */
export interface ModelDescription {
  maxBatchSize: number;
  isDecoupled: boolean;
  inputs: readonly TensorDescription[];
  outputs: readonly TensorDescription[];
}

const tensorSchema = z.looseObject({
  name: z.string(),
  data_type: z.string(),
  optional: z.boolean().default(false),
});
const configSchema = z.looseObject({
  max_batch_size: z.int().default(0),
  input: z.array(tensorSchema).default([]),
  output: z.array(tensorSchema).default([]),
  model_transaction_policy: z.looseObject({ decoupled: z.boolean().default(false) }).optional(),
});

/** Of Triton's "Model Repository Extension". */
const indexSchema = z.array(z.looseObject({ name: z.string() }));

export interface InferenceHttpOptions {
  /** "localhost:8000", or with http:// or https:// before it. */
  url: string;
  modelName: string;
  /** Sent as a bearer token and as Triton's access token. */
  apiKey?: string | undefined;
  /** For one answer; undefined: no limit. */
  requestTimeoutMs?: number | undefined;
}

/** Between looks at a server that is not ready. */
const pollMs = 500;
/** What a server that runs may take to say so, however short the time limit. */
const shortestProbeMs = 1000;

export class InferenceHttp {
  readonly #base: string;
  readonly #modelName: string;
  readonly #headers: Readonly<Record<string, string>>;
  readonly #requestTimeoutMs: number | undefined;

  /** Throws QueryError for an address that is none. */
  constructor({ url, modelName, apiKey, requestTimeoutMs }: InferenceHttpOptions) {
    this.#base = baseUrl(url);
    this.#modelName = modelName;
    this.#requestTimeoutMs = requestTimeoutMs;
    this.#headers =
      apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}`, "triton-access-token": apiKey };
  }

  get #modelPath(): string {
    return `/v2/models/${encodeURIComponent(this.#modelName)}`;
  }

  /** Asks until server and model are ready. Throws QueryError once `timeoutMs` are over. */
  async waitUntilReady(timeoutMs: number): Promise<void> {
    const deadline = performance.now() + timeoutMs;
    const paths = ["/v2/health/live", "/v2/health/ready", `${this.#modelPath}/ready`];
    for (let next = 0; next < paths.length;) {
      const reason = await this.#probe(paths[next], Math.max(shortestProbeMs, deadline - performance.now()));
      if (reason === undefined) {
        next++;
        continue;
      }
      if (performance.now() + pollMs >= deadline) {
        throw new QueryError(
          "query",
          `expected model '${this.#modelName}' at ${this.#base} to be ready within ${timeoutMs / 1000} s, got ${reason}`,
          { hint: await this.#hint(paths[next]) },
        );
      }
      await delay(pollMs);
    }
  }

  /** What to check when `path` was not ready: a server that runs may tell which models it has. */
  async #hint(path: string): Promise<string> {
    const plain = "check the address, the model's name, and that the server runs";
    if (!path.startsWith(this.#modelPath)) return plain;
    try {
      const response = await fetch(`${this.#base}/v2/repository/index`, {
        method: "POST",
        headers: this.#headers,
        signal: AbortSignal.timeout(shortestProbeMs),
      });
      const known = indexSchema.parse(await response.json()).map(({ name }) => name);
      // The form of a model that streams stands under its own name.
      const names = known.filter((name) => !name.endsWith(":streaming"));
      return names.length === 0 ? "the server has no models" : `the server has ${names.join(", ")}`;
    } catch {
      // An older protocol, or no permission: the sentence does without.
      return plain;
    }
  }

  /** Why not, or undefined. */
  async #probe(path: string, timeoutMs: number): Promise<string | undefined> {
    try {
      const response = await fetch(this.#base + path, {
        headers: this.#headers,
        signal: AbortSignal.timeout(Math.ceil(timeoutMs)),
      });
      await response.arrayBuffer();
      return response.ok ? undefined : `status ${response.status} from ${path}`;
    } catch (error) {
      return reasonOf(error);
    }
  }

  /** Throws QueryError. */
  async describe(): Promise<ModelDescription> {
    const response = await this.#fetch(`${this.#modelPath}/config`, {});
    const config = parseConfig("query", configSchema, await response.json());
    const described = ({ name, data_type, optional }: z.output<typeof tensorSchema>): TensorDescription => ({
      name,
      datatype: fromConfigName(data_type),
      isOptional: optional,
    });
    return {
      maxBatchSize: config.max_batch_size,
      isDecoupled: config.model_transaction_policy?.decoupled ?? false,
      inputs: config.input.map(described),
      outputs: config.output.map(described),
    };
  }

  /** Throws QueryError with the server's own words where it refuses. */
  async infer(request: InferRequest): Promise<InferResponse> {
    const { bytes, headerLength } = encodeInferRequest(request);
    const response = await this.#fetch(`${this.#modelPath}/infer`, {
      method: "POST",
      body: new Uint8Array(bytes),
      headers: headerLength === undefined ? {} : { [headerLengthName]: String(headerLength) },
    });
    const body = new Uint8Array(await response.arrayBuffer());
    const length = response.headers.get(headerLengthName) ?? undefined;
    return parseInferResponse({ bytes: body, headerLength: parseHeaderLength(length, body.length) });
  }

  async #fetch(
    path: string,
    init: { method?: string; body?: Uint8Array<ArrayBuffer>; headers?: object },
  ): Promise<Response> {
    let response: Response;
    try {
      response = await fetch(this.#base + path, {
        ...init,
        headers: { ...this.#headers, ...init.headers },
        ...(this.#requestTimeoutMs === undefined
          ? {}
          : { signal: AbortSignal.timeout(this.#requestTimeoutMs) }),
      });
    } catch (cause) {
      throw new QueryError("query", `expected an answer from ${this.#base}${path}, got ${reasonOf(cause)}`, {
        cause,
      });
    }
    if (response.ok) return response;
    throw new QueryError(
      "query",
      `expected an answer from ${this.#base}${path}, got status ${response.status}: ${await errorText(response)}`,
    );
  }
}

/** "host:port" with the scheme and without a slash at its end. Throws QueryError. */
function baseUrl(url: string): string {
  const whole = /^[a-z]+:\/\//i.test(url) ? url : `http://${url}`;
  const parsed = URL.parse(whole);
  if (parsed === null || !["http:", "https:"].includes(parsed.protocol)) {
    throw new QueryError("query", `expected an address such as localhost:8000, got '${url}'`, {
      hint: "streams go over gRPC: query_llm_streaming",
    });
  }
  return parsed.href.replace(/\/+$/, "");
}

function reasonOf(error: unknown): string {
  if (error instanceof Error && error.name === "TimeoutError") return "no answer in time";
  // fetch wraps what went wrong.
  return messageOf(error instanceof Error && error.cause !== undefined ? error.cause : error);
}

async function errorText(response: Response): Promise<string> {
  const text = await response.text();
  try {
    const body: unknown = JSON.parse(text);
    if (typeof body === "object" && body !== null && "error" in body) return String(body.error);
  } catch {
    // Not JSON: the text itself says what there is to say.
  }
  return text.slice(0, 500);
}
