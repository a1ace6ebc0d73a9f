/** `nautilus generate`: prompts in, text out as it is drawn. */
import { readFileSync } from "node:fs";
import { ConfigError, formatCount } from "../../base/index.ts";
import { openDevice } from "../../device/index.ts";
import { generateText, ModelRunner, parseSampling } from "../../infer/index.ts";
import type { SamplingInput, TextEvent, TextRequest } from "../../infer/index.ts";
import { Context } from "../../tensor/index.ts";
import { endTokens, openModel } from "./openModel.ts";
import type { OpenModel } from "./openModel.ts";

/** The verb's options. */
export interface GenerateCliOptions {
  model: string;
  prompt?: string[];
  maxTokens: number;
  temperature: number;
  topK: number;
  topP: number;
  minP: number;
  repetitionPenalty: number;
  seed: number;
  stop?: string[];
  count: number;
  precision?: "f32" | "bf16";
  tokenizer?: string;
  device: "auto" | "cpu" | "cuda" | "reference";
  threads?: number;
  logprobs?: boolean;
  json?: boolean;
}

const blockSize = 16;

/** A runner with room for `requests` at their longest. */
export function runnerFor(
  context: Context,
  { decoder, tokenizer }: OpenModel,
  requests: readonly TextRequest[],
): ModelRunner {
  const { maxPositions } = decoder.config;
  const numTokens = requests.map(({ prompt, sampling }) =>
    Math.min(maxPositions, Math.max(1, tokenizer.encode(prompt).length) + sampling.maxTokens + 1),
  );
  const numBlocks = numTokens.reduce((total, count) => total + Math.ceil(count / blockSize), 0);
  return new ModelRunner(context, decoder, {
    blockSize,
    numBlocks,
    maxContext: maxPositions,
    maxPromptRows: 2048,
    numTokens: tokenizer.vocabSize,
  });
}

function readPrompts(options: GenerateCliOptions): string[] {
  if (options.prompt !== undefined) return options.prompt;
  if (process.stdin.isTTY)
    throw new ConfigError("generate", "expected a prompt, got none", {
      hint: '--prompt "…", or pipe text in',
    });
  return [readFileSync(0, "utf8")];
}

export async function generateCommand(options: GenerateCliOptions): Promise<void> {
  if (options.precision !== undefined && options.precision !== "f32" && options.precision !== "bf16") {
    throw new ConfigError(
      "generate",
      `--precision: expected f32 or bf16, got '${String(options.precision)}'`,
    );
  }
  const sampling: SamplingInput = {
    maxTokens: options.maxTokens,
    temperature: options.temperature,
    topK: options.topK,
    topP: options.topP,
    minP: options.minP,
    repetitionPenalty: options.repetitionPenalty,
    stop: options.stop ?? [],
  };
  const prompts = readPrompts(options);
  const requests = prompts.flatMap((prompt) =>
    Array.from({ length: options.count }, (_, sample) => ({
      prompt,
      sampling: parseSampling({ ...sampling, seed: options.seed + sample }),
    })),
  );
  using device = await openDevice({ kind: options.device, threads: options.threads });
  const context = new Context(device);
  using model = await openModel(context, options.model, {
    precision: options.precision,
    tokenizer: options.tokenizer,
  });
  using runner = runnerFor(context, model, requests);
  const events = generateText(runner, model.tokenizer, {
    requests,
    endTokens: endTokens(model.folder, model.tokenizer),
  });
  await print(events, { requests, options, model });
}

interface Result {
  prompt: string;
  text: string;
  tokens: number[];
  logprobs: number[];
  finishReason: string;
}

async function print(
  events: AsyncGenerator<TextEvent>,
  {
    requests,
    options,
    model,
  }: { requests: readonly TextRequest[]; options: GenerateCliOptions; model: OpenModel },
): Promise<void> {
  const results: Result[] = requests.map(({ prompt }) => ({
    prompt,
    text: "",
    tokens: [],
    logprobs: [],
    finishReason: "",
  }));
  // One text is shown as it grows; several would run into each other.
  const isLive = requests.length === 1 && options.json !== true && options.logprobs !== true;
  if (isLive) process.stdout.write(requests[0].prompt);
  const startMs = performance.now();
  let firstMs: number | undefined;
  let numTokens = 0;
  for await (const { request, text, token, logprob, finishReason } of events) {
    firstMs ??= performance.now();
    numTokens++;
    const result = results[request];
    result.text += text;
    result.tokens.push(token);
    result.logprobs.push(logprob);
    if (finishReason !== undefined) result.finishReason = finishReason;
    if (isLive) process.stdout.write(text);
  }
  const decodeSeconds = (performance.now() - (firstMs ?? startMs)) / 1000;
  const tokensPerSecond = Math.max(0, numTokens - requests.length) / Math.max(decodeSeconds, 1e-9);
  if (options.json === true) {
    process.stdout.write(
      `${JSON.stringify({ model: model.path, tokensPerSecond, results }, undefined, 2)}\n`,
    );
    return;
  }
  if (isLive) process.stdout.write("\n");
  else for (const result of results) printResult(result, { model, showLogprobs: options.logprobs === true });
  if (process.stderr.isTTY)
    process.stderr.write(`${numTokens} tokens, ${formatCount(tokensPerSecond)} tokens/s after the first\n`);
}

function printResult(
  result: Result,
  { model, showLogprobs }: { model: OpenModel; showLogprobs: boolean },
): void {
  if (!showLogprobs) {
    process.stdout.write(`${result.prompt}${result.text}\n----\n`);
    return;
  }
  for (const [index, token] of result.tokens.entries()) {
    process.stdout.write(
      `${result.logprobs[index].toFixed(4).padStart(10)}  ${JSON.stringify(model.tokenizer.decode([token], { specialTokens: "show" }))}\n`,
    );
  }
}
