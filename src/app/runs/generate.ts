/** `nautilus generate`: prompts in, text out as it is drawn. */
import { readFileSync } from "node:fs";
import { ConfigError, countOf, formatCount, note, readJson } from "../../base/index.ts";
import type { QuantisedFormat } from "../../device/index.ts";
import type { CacheFormat } from "../../models/index.ts";
import { generateText, parseSampling } from "../../infer/index.ts";
import type { IndexedEvent, OutputConstraint, SamplingInput, TextRequest } from "../../infer/index.ts";
import { loadChatTemplates } from "../../text/index.ts";
import { conversationPrompt } from "../api/conversation.ts";
import { openEngine } from "../api/openEngine.ts";
import type { OpenEngine } from "../api/openEngine.ts";

/** The verb's options. */
export interface GenerateCliOptions {
  model: string;
  adapter?: string;
  prompt?: string[];
  chat?: boolean;
  system?: string;
  maxTokens: number;
  temperature: number;
  topK: number;
  topP: number;
  minP: number;
  repetitionPenalty: number;
  presencePenalty: number;
  frequencyPenalty: number;
  minTokens: number;
  regex?: string;
  jsonSchema?: string;
  seed: number;
  stop?: string[];
  count: number;
  precision?: "f32" | "bf16";
  mmap: boolean;
  quantise?: QuantisedFormat;
  kvCache: CacheFormat;
  tokenizer?: string;
  device: "auto" | "cpu" | "cuda" | "reference";
  threads?: number;
  logprobs?: boolean;
  json?: boolean;
}

function readPrompts(options: GenerateCliOptions): string[] {
  if (options.prompt !== undefined) return options.prompt;
  if (process.stdin.isTTY)
    throw new ConfigError("generate", "expected a prompt, got none", {
      hint: '--prompt "…", or pipe text in',
    });
  return [readFileSync(0, "utf8")];
}

function readConstraint({ regex, jsonSchema }: GenerateCliOptions): OutputConstraint | undefined {
  if (regex !== undefined && jsonSchema !== undefined)
    throw new ConfigError("generate", "expected --regex or --json-schema, got both");
  if (regex !== undefined) return { kind: "regex", pattern: regex };
  if (jsonSchema === undefined) return undefined;
  return { kind: "json-schema", schema: readJson("generate", jsonSchema) };
}

export async function generateCommand(options: GenerateCliOptions): Promise<void> {
  const sampling: SamplingInput = {
    maxTokens: options.maxTokens,
    temperature: options.temperature,
    topK: options.topK,
    topP: options.topP,
    minP: options.minP,
    repetitionPenalty: options.repetitionPenalty,
    presencePenalty: options.presencePenalty,
    frequencyPenalty: options.frequencyPenalty,
    minTokens: options.minTokens,
    stop: options.stop ?? [],
  };
  if (options.system !== undefined && options.chat !== true)
    throw new ConfigError("generate", "expected --chat with --system, got --system alone");
  const constraint = readConstraint(options);
  const prompts = readPrompts(options);
  const requests = prompts.flatMap((prompt) =>
    Array.from({ length: options.count }, (_, sample) => ({
      prompt,
      sampling: parseSampling({ ...sampling, seed: options.seed + sample }),
      constraint,
    })),
  );
  await using open = await openEngine({
    model: options.model,
    device: options.device,
    threads: options.threads,
    precision: options.precision,
    quantise: options.quantise,
    mmap: options.mmap,
    kvCache: options.kvCache,
    tokenizer: options.tokenizer,
    adapter: options.adapter,
    maxSequences: Math.min(requests.length, 256),
  });
  const asked = options.chat === true ? asTurns(requests, open, options.system) : requests;
  await print(generateText(open.engine, open.tokenizer, asked), { requests, options, open });
}

interface PromptRequest extends TextRequest {
  prompt: string;
}

/** Each prompt as a user's turn, with the ends of the model's chat format. */
function asTurns(
  requests: readonly PromptRequest[],
  { tokenizer, folder }: OpenEngine,
  system: string | undefined,
): TextRequest[] {
  const model = { tokenizer, chatTemplates: loadChatTemplates(folder) };
  const first = system === undefined ? [] : [{ role: "system", content: system }];
  return requests.map((request) => {
    const turn = { role: "user", content: request.prompt };
    const { stop, ...others } = conversationPrompt(model, [...first, turn]);
    return {
      ...request,
      ...others,
      sampling: { ...request.sampling, stop: [...request.sampling.stop, ...stop] },
    };
  });
}

interface Result {
  prompt: string;
  text: string;
  tokens: number[];
  logprobs: number[];
  finishReason: string;
}

async function print(
  events: AsyncGenerator<IndexedEvent>,
  {
    requests,
    options,
    open,
  }: { requests: readonly PromptRequest[]; options: GenerateCliOptions; open: OpenEngine },
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
  // Not before the first event: a request that is refused shows its reason alone.
  let opening = isLive && options.chat !== true ? requests[0].prompt : "";
  const startMs = performance.now();
  let firstMs: number | undefined;
  let numTokens = 0;
  for await (const { index, event } of events) {
    if (opening !== "") process.stdout.write(opening);
    opening = "";
    if (event.type === "prompt") continue;
    const result = results[index];
    if (event.type === "end") {
      result.finishReason = event.reason;
    } else {
      firstMs ??= performance.now();
      numTokens++;
      result.tokens.push(event.token);
      result.logprobs.push(event.logprob);
    }
    result.text += event.text;
    if (isLive) process.stdout.write(event.text);
  }
  const decodeSeconds = (performance.now() - (firstMs ?? startMs)) / 1000;
  const tokensPerSecond = Math.max(0, numTokens - requests.length) / Math.max(decodeSeconds, 1e-9);
  noteContextEnd(results, { open, options });
  if (options.json === true) {
    process.stdout.write(`${JSON.stringify({ model: open.path, tokensPerSecond, results }, undefined, 2)}\n`);
    return;
  }
  if (isLive) process.stdout.write("\n");
  else for (const result of results) printResult(result, { open, options });
  if (process.stderr.isTTY)
    process.stderr.write(
      `${countOf(numTokens, "token")}, ${formatCount(tokensPerSecond)} tokens/s after the first\n`,
    );
}

/** Texts that ended before --max-tokens, and not of themselves. */
function noteContextEnd(
  results: readonly Result[],
  { open, options: { maxTokens } }: { open: OpenEngine; options: GenerateCliOptions },
): void {
  const cut = results.filter(
    ({ finishReason, tokens }) => finishReason === "length" && tokens.length < maxTokens,
  );
  if (cut.length === 0) return;
  const { maxContext } = open.engine.info;
  const what =
    cut.length === 1
      ? `${countOf(cut[0].tokens.length, "token")} instead of`
      : `${countOf(cut.length, "text")} shorter than`;
  note(
    `The end of the model's context (${countOf(maxContext, "token")} with the prompt) was reached: ${what} --max-tokens ${maxTokens}`,
  );
}

function printResult(
  result: Result,
  { open, options }: { open: OpenEngine; options: GenerateCliOptions },
): void {
  if (options.logprobs !== true) {
    process.stdout.write(`${options.chat === true ? "" : result.prompt}${result.text}\n----\n`);
    return;
  }
  for (const [index, token] of result.tokens.entries()) {
    process.stdout.write(
      `${result.logprobs[index].toFixed(4).padStart(10)}  ${JSON.stringify(open.tokenizer.decode([token], { specialTokens: "show" }))}\n`,
    );
  }
}
