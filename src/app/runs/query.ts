/** What `nautilus query` does: one call of NemoQuery, its answers to standard output. */
import { text } from "node:stream/consumers";
import { setTimeout as delay } from "node:timers/promises";
import { z } from "zod";
import { ConfigError, parseConfig } from "../../base/index.ts";
import { NemoQuery, QueryError } from "../client/index.ts";
import type { QueryLlmOptions } from "../client/index.ts";

export interface QueryCliOptions {
  url: string;
  modelName?: string;
  prompt?: string[];
  maxOutputToken: number;
  topK: number;
  topP: number;
  temperature: number;
  randomSeed?: number;
  repetitionPenalty?: number;
  stop?: string[];
  stream?: boolean;
  grpcUrl: string;
  initTimeout: number;
  apiKey?: string;
  json?: boolean;
}

/** Throws QueryError, RequestError, ConfigError. */
export async function queryCommand(options: QueryCliOptions): Promise<void> {
  const prompts = options.prompt ?? [await text(process.stdin)];
  const apiKey = options.apiKey ?? process.env["NAUTILUS_API_KEY"];
  const name = options.modelName ?? (await onlyModel(options, apiKey));
  const query = new NemoQuery({
    url: options.url,
    model_name: name,
    ...(apiKey === undefined ? {} : { api_key: apiKey }),
  });
  const asked: QueryLlmOptions = {
    prompts,
    max_output_token: options.maxOutputToken,
    top_k: options.topK,
    top_p: options.topP,
    temperature: options.temperature,
    init_timeout: options.initTimeout,
    ...(options.randomSeed === undefined ? {} : { random_seed: options.randomSeed }),
    ...(options.repetitionPenalty === undefined ? {} : { repetition_penalty: options.repetitionPenalty }),
    ...(options.stop === undefined ? {} : { stop_words_list: options.stop }),
  };
  if (options.stream === true) {
    if (prompts.length !== 1)
      throw new ConfigError("query", `--stream: expected one prompt, got ${prompts.length}`);
    let shown = "";
    for await (const [[answer]] of query.query_llm_streaming({ ...asked, grpc_url: options.grpcUrl })) {
      process.stdout.write(answer.slice(shown.length));
      shown = answer;
    }
    process.stdout.write("\n");
    return;
  }
  const answers = await query.query_llm(asked);
  if (options.json === true) process.stdout.write(`${JSON.stringify({ model: name, outputs: answers })}\n`);
  else for (const [answer] of answers) process.stdout.write(`${answer}\n`);
}

const indexSchema = z.array(z.looseObject({ name: z.string() }));

/** Between looks at a server that is not ready. */
const pollMs = 500;

/** The name of the one model that a server has; waits as long as `initTimeout` seconds for the server. Throws ConfigError, QueryError. */
async function onlyModel({ url, initTimeout }: QueryCliOptions, apiKey: string | undefined): Promise<string> {
  const deadline = performance.now() + initTimeout * 1000;
  for (;;) {
    const models = await modelNames(url, apiKey, Math.max(shortestMs, deadline - performance.now()));
    if (typeof models !== "string" && models.length === 1) return models[0];
    const isOver = performance.now() + pollMs >= deadline;
    if (typeof models !== "string" && (models.length > 1 || isOver)) {
      const known = models.join(", ") || "none";
      throw new ConfigError("query", `expected --model-name, since the server's models are: ${known}`);
    }
    if (typeof models === "string" && isOver) {
      const waited = initTimeout === 0 ? "" : ` within ${initTimeout} s`;
      throw new ConfigError("query", `expected a server at ${url}${waited}, got ${models}`, {
        hint: "nautilus serve",
      });
    }
    await delay(pollMs);
  }
}

/** What a server that runs may take to say so, however short the time limit. */
const shortestMs = 1000;

/** Names of a server's models, or why there are none yet. Throws QueryError where waiting would change nothing. */
async function modelNames(
  url: string,
  apiKey: string | undefined,
  timeoutMs: number,
): Promise<string[] | string> {
  const base = /^https?:\/\//.test(url) ? url : `http://${url}`;
  let answer: Response;
  try {
    answer = await fetch(`${base}/v2/repository/index`, {
      method: "POST",
      headers: apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` },
      signal: AbortSignal.timeout(Math.ceil(timeoutMs)),
    });
  } catch {
    return "none";
  }
  if (answer.status >= 500) return `status ${answer.status}`;
  if (!answer.ok) {
    const details = answer.status === 401 ? { hint: "--api-key, or NAUTILUS_API_KEY" } : {};
    const got = `expected the models of ${url}, got status ${answer.status}`;
    throw new QueryError("query", got, details);
  }
  const known = parseConfig("query", indexSchema, await answer.json()).map(({ name }) => name);
  // A model's adapters and its streaming form stand under its own name.
  return known.filter((name) => !known.some((other) => name.startsWith(`${other}:`)));
}
