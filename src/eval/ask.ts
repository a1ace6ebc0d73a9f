/** Puts requests of all kinds to a language model and gives the answers in order. Equal requests are asked once. */
import { invariant } from "../base/index.ts";
import type { GenerateRequest, LanguageModel, LoglikelihoodRequest, Prompt } from "../text/index.ts";
import type { Answer, TaskRequest } from "./task.ts";

export interface AskOptions {
  signal?: AbortSignal | undefined;
  onProgress?: (numDone: number) => void;
}

/** Answers to `requests`; undefined when the signal stopped it. Throws what the model throws. */
export async function ask(
  model: LanguageModel,
  requests: readonly TaskRequest[],
  options: AskOptions,
): Promise<Answer[] | undefined> {
  try {
    return await askAll(model, requests, options);
  } catch (error) {
    // Models stop at the signal by throwing its reason, or what comes of a request that was cut.
    if (options.signal?.aborted === true) return undefined;
    throw error;
  }
}

async function askAll(
  model: LanguageModel,
  requests: readonly TaskRequest[],
  { signal, onProgress }: AskOptions,
): Promise<Answer[] | undefined> {
  const answers: (Answer | undefined)[] = requests.map(() => undefined);
  const places = {
    loglikelihood: new Map<string, number[]>(),
    rolling: [] as number[],
    generate: [] as number[],
  };
  for (const [place, request] of requests.entries()) {
    if (request.kind !== "loglikelihood") {
      places[request.kind].push(place);
      continue;
    }
    const key = `${keyOf(request.context)}\u001f${keyOf(request.continuation)}`;
    const same = places.loglikelihood.get(key);
    if (same === undefined) places.loglikelihood.set(key, [place]);
    else same.push(place);
  }
  let numBefore = 0;
  const options = () => ({
    ...(signal === undefined ? {} : { signal }),
    onProgress: (numDone: number) => onProgress?.(numBefore + numDone),
  });
  const groups = [...places.loglikelihood.values()];
  if (groups.length > 0) {
    const pairs = groups.map(([place]) => likelihoodRequest(requests[place]));
    const results = await model.loglikelihood(pairs, options());
    for (const [index, group] of groups.entries())
      for (const place of group) answers[place] = { kind: "likelihood", ...results[index] };
    numBefore += groups.length;
  }
  if (places.rolling.length > 0) {
    const results = await model.loglikelihoodRolling(
      places.rolling.map((place) => textOf(requests[place])),
      options(),
    );
    for (const [index, place] of places.rolling.entries())
      answers[place] = { kind: "likelihood", isGreedy: false, ...results[index] };
    numBefore += places.rolling.length;
  }
  if (places.generate.length > 0) {
    const texts = await generateTexts(
      model,
      places.generate.map((place) => generationOf(requests[place])),
      options(),
    );
    for (const [index, place] of places.generate.entries())
      answers[place] = { kind: "text", text: texts[index] };
  }
  if (signal?.aborted === true) return undefined;
  return answers.map((answer) => {
    invariant(answer !== undefined, "every request is answered");
    return answer;
  });
}

async function generateTexts(
  model: LanguageModel,
  requests: readonly GenerateRequest[],
  options: { signal?: AbortSignal; onProgress: (numDone: number, numRequests: number) => void },
): Promise<string[]> {
  const texts = requests.map(() => "");
  for await (const event of model.generate(requests, options)) texts[event.index] += event.text;
  return texts;
}

function keyOf(prompt: Prompt): string {
  return typeof prompt === "string" ? `t${prompt}` : `i${prompt.join(",")}`;
}

function likelihoodRequest(request: TaskRequest): LoglikelihoodRequest {
  invariant(request.kind === "loglikelihood", "a pair");
  return { context: request.context, continuation: request.continuation };
}

function textOf(request: TaskRequest): string {
  invariant(request.kind === "rolling", "a whole text");
  return request.text;
}

function generationOf(request: TaskRequest): GenerateRequest {
  invariant(request.kind === "generate", "a generation");
  const { prompt, stop, maxNewTokens, sampling } = request;
  return { prompt, stop, maxNewTokens, sampling };
}
