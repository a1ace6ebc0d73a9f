/** Requests to an engine and their whole answers, for tests that compare these. */
import { generateTogether, parseSampling } from "../../src/infer/index.ts";
import type {
  EngineCore,
  EngineEvent,
  EngineRequest,
  SamplingInput,
  TokenLogprobs,
} from "../../src/infer/index.ts";

export function request(
  prompt: readonly number[],
  sampling: SamplingInput,
  rest: Partial<EngineRequest> = {},
): EngineRequest {
  return { prompt, sampling: parseSampling({ temperature: 0, ...sampling }), ...rest };
}

export interface Answer {
  tokens: number[];
  logprobs: number[];
  ranked: TokenLogprobs[];
  prompt: readonly TokenLogprobs[] | undefined;
  alternatives: readonly TokenLogprobs[];
  reason: string;
  numCachedTokens: number;
}

/** Answers of requests that run together, in their order. */
export async function collect(engine: EngineCore, requests: readonly EngineRequest[]): Promise<Answer[]> {
  const answers = requests.map((): Answer => ({
    tokens: [],
    logprobs: [],
    ranked: [],
    prompt: undefined,
    alternatives: [],
    reason: "",
    numCachedTokens: 0,
  }));
  for await (const { index, event } of generateTogether(engine, requests)) take(answers[index], event);
  return answers;
}

function take(answer: Answer, event: EngineEvent): void {
  if (event.type === "prompt") {
    answer.prompt = event.logprobs;
    answer.alternatives = event.alternatives;
  } else if (event.type === "end") {
    answer.reason = event.reason;
    answer.numCachedTokens = event.numCachedTokens;
  } else {
    answer.tokens.push(event.token);
    answer.logprobs.push(event.logprob);
    answer.ranked.push(event);
  }
}
