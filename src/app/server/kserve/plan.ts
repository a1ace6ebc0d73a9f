/**
 * What a request's tensors ask of the engine, with NeMo's meanings: top_k 1 is greedy and the default, top_p 0.0 is off, prompts get no
 * beginning mark unasked, the answer is the new text alone.
 * Sources: NeMo (nemo/export/tensorrt_llm.py, nemo_deploy's deployables), ../../../../docs/serving.md for the whole list.
 */
import { randomInt } from "node:crypto";
import { z } from "zod";
import { RequestError } from "../../../base/index.ts";
import { parseSampling } from "../../../infer/index.ts";
import type { EngineRequest } from "../../../infer/index.ts";
import type { ChatMessage } from "../../../text/index.ts";
import { type Tensor, parseJson, parseMessage, readTexts } from "../../kserve/index.ts";
import type { ResolvedModel, ServedModel } from "../servedModel.ts";
import { type Bans, bansOf } from "./bans.ts";
import type { Inputs } from "./inputs.ts";
import type { InputName } from "./modelSchema.ts";

const component = "infer";
const defaultMaxTokens = 256;
const maxTopLogprobs = 100;

/** What the answer holds besides texts. */
export interface Wanted {
  /** The prompt before the answer, in texts and in log-probabilities. */
  echo: boolean;
  /** Log-probabilities of tokens as numbers, NeMo's form. */
  logProbs: boolean;
  /** With each token so many most likely ones as JSON, NeMo's form; 0: none. */
  numTop: number;
  /** As JSON per token, vLLM's form; undefined: not asked for. */
  numJsonLogProbs: number | undefined;
  numJsonPromptLogProbs: number | undefined;
  /** Of the answer, under these names: NeMo's and Hugging Face's. */
  generationLogits: readonly ("generation_logits" | "logits" | "scores")[];
  contextLogits: boolean;
}

export interface Plan {
  /** As the client gave them. */
  prompts: readonly string[];
  /** Of the prompts' tensor; answers have it too. */
  shape: readonly number[];
  /** One a prompt. */
  requests: readonly EngineRequest[];
  model: ResolvedModel;
  bans: Bans;
  wanted: Wanted;
  /** Which text output a request that names none gets. */
  mainOutput: "outputs" | "text_output";
}

/** Throws RequestError for what cannot be. */
export function planRequest(resolved: ResolvedModel, inputs: Inputs): Plan {
  const { shape, prompts, name } = readPrompts(inputs);
  const model = withAdapter(resolved, inputs);
  const numRows = prompts.length;
  const wanted = readWanted(inputs);
  refuseWhatIsNotOffered(inputs, numRows);
  const sampling = readSampling(inputs, numRows, name === "text_input" || inputs.has("max_tokens"));
  const useTemplate = inputs.booleans(["apply_chat_template"], numRows);
  const addBos = inputs.booleans(["add_BOS"], numRows);
  const requests = prompts.map((prompt, row): EngineRequest => {
    const text = useTemplate[row] === true ? renderChat(model.model, prompt) : prompt;
    const ids = encodePrompt(model.model, text, addBos[row] === true);
    return buildRequest(model.model, { ids, row, sampling: sampling[row], inputs, numRows, wanted });
  });
  checkLogitBytes(model.model, requests, wanted);
  const bans = readBans(model.model, inputs);
  checkPenalties(bans, sampling);
  return {
    prompts,
    shape,
    requests,
    model,
    bans,
    wanted,
    mainOutput: name === "text_input" ? "text_output" : "outputs",
  };
}

function readPrompts(inputs: Inputs): {
  prompts: string[];
  shape: readonly number[];
  name: "prompts" | "text_input";
} {
  const name = inputs.has("text_input") ? "text_input" : "prompts";
  const tensor = inputs.tensor(name);
  if (tensor === undefined || (name === "text_input" && inputs.has("prompts")))
    throw new RequestError(component, "expected one input 'prompts' (or 'text_input')");
  const { shape } = tensor;
  if (shape.length > 2 || (shape.length === 2 && shape[1] !== 1)) {
    throw new RequestError(
      component,
      `'${name}': expected shape [number of prompts, 1], got [${shape.join(", ")}]`,
    );
  }
  const prompts = readTexts(tensor);
  if (prompts.length === 0) throw new RequestError(component, `'${name}': expected a prompt, got none`);
  return { prompts, shape, name };
}

/** Adapters by NeMo's names for them; one for all prompts of a request. */
function withAdapter(model: ResolvedModel, inputs: Inputs): ResolvedModel {
  const names = new Set(
    [...inputs.texts("lora_uids"), ...inputs.texts("task_id")].filter((name) => name !== ""),
  );
  const [name] = names;
  if (name === undefined) return model;
  if (names.size > 1)
    throw new RequestError(component, `expected one adapter a request, got ${[...names].join(", ")}`);
  const { adapters } = model.model.engine.info;
  if (!adapters.includes(name)) {
    throw new RequestError(component, `expected a loaded adapter, got '${name.slice(0, 100)}'`, {
      hint: adapters.length === 0 ? "the server has none" : `loaded: ${adapters.join(", ")}`,
    });
  }
  return { model: model.model, adapter: name };
}

function readWanted(inputs: Inputs): Wanted {
  const flag = (name: InputName): boolean => isAnyTrue(inputs, name);
  const top = (name: InputName): number | undefined =>
    inputs.tensor(name) === undefined ? undefined : Math.max(...readCounts(inputs, name));
  const generationLogits = [
    ["generation_logits", flag("output_generation_logits")],
    ["logits", flag("output_logits")],
    ["scores", flag("output_scores")],
  ] as const;
  return {
    echo: flag("echo"),
    logProbs: flag("compute_logprob"),
    numTop: top("n_top_logprobs") ?? 0,
    numJsonLogProbs: top("n_log_probs"),
    numJsonPromptLogProbs: top("n_prompt_log_probs"),
    generationLogits: generationLogits.filter(([, isWanted]) => isWanted).map(([name]) => name),
    contextLogits: flag("output_context_logits"),
  };
}

function isAnyTrue(inputs: Inputs, name: InputName): boolean {
  return inputs.booleans([name], countOf(inputs, name)).includes(true);
}

function readCounts(inputs: Inputs, name: InputName): number[] {
  const range = { min: 0, max: maxTopLogprobs };
  return inputs.integers([name], countOf(inputs, name), range).map((value) => value ?? 0);
}

function countOf(inputs: Inputs, name: InputName): number {
  return Math.max(1, inputs.tensor(name)?.shape.reduce((count, dimension) => count * dimension, 1) ?? 1);
}

function refuseWhatIsNotOffered(inputs: Inputs, numRows: number): void {
  inputs.integers(["max_batch_size"], numRows);
  inputs.numbers(["length_penalty"], numRows);
  for (const width of inputs.integers(["beam_width"], numRows)) {
    if (width !== undefined && width !== 1)
      throw new RequestError(component, `'beam_width': expected 1, got ${width}`, { hint: "no beam search" });
  }
  if (isAnyTrue(inputs, "all_probs")) {
    throw new RequestError(component, "'all_probs': expected false, got true", {
      hint: "n_top_logprobs gives the likeliest tokens beside each",
    });
  }
}

/** What `parseSampling` takes, of one row. */
interface RowSampling {
  maxTokens: number | undefined;
  minTokens: number | undefined;
  temperature: number;
  topK: number;
  topP: number;
  minP: number;
  repetitionPenalty: number;
  presencePenalty: number;
  frequencyPenalty: number;
  seed: number;
}

const seedLimit = 2 ** 47;

/** `drawsByTemperature`: a temperature alone asks for sampling, as it does where the tensors are vLLM's or TensorRT-LLM's. */
function readSampling(inputs: Inputs, numRows: number, drawsByTemperature: boolean): RowSampling[] {
  const maxTokens = inputs.integers(
    ["max_output_token", "max_output_len", "max_length", "max_tokens"],
    numRows,
    {
      min: 1,
    },
  );
  const minTokens = inputs.integers(["min_output_len", "min_length", "min_tokens"], numRows, { min: 0 });
  const temperature = inputs.numbers(["temperature"], numRows, { min: 0 });
  const topK = inputs.integers(["top_k"], numRows, { min: 0 });
  const topP = inputs.numbers(["top_p"], numRows, { min: 0, max: 1 });
  const minP = inputs.numbers(["min_p"], numRows, { min: 0, max: 1 });
  const useGreedy = inputs.booleans(["use_greedy"], numRows);
  const repetition = inputs.numbers(["repetition_penalty"], numRows, { min: Number.MIN_VALUE });
  const presence = inputs.numbers(["presence_penalty"], numRows);
  const frequency = inputs.numbers(["frequency_penalty"], numRows);
  const seeds = inputs.integers(["random_seed", "seed"], numRows, { min: 0 });
  return Array.from({ length: numRows }, (_, row) => {
    const asksToDraw =
      useGreedy[row] === false ||
      (topP[row] ?? 0) > 0 ||
      (minP[row] ?? 0) > 0 ||
      (drawsByTemperature && (temperature[row] ?? 0) > 0);
    return {
      maxTokens: maxTokens[row],
      minTokens: minTokens[row],
      temperature: temperature[row] ?? 1,
      topK: useGreedy[row] === true ? 1 : (topK[row] ?? (asksToDraw ? 0 : 1)),
      topP: topP[row] ?? 0,
      minP: minP[row] ?? 0,
      repetitionPenalty: repetition[row] ?? 1,
      presencePenalty: presence[row] ?? 0,
      frequencyPenalty: frequency[row] ?? 0,
      seed: seeds[row] ?? randomInt(seedLimit),
    };
  });
}

const messagesSchema = z
  .array(z.looseObject({ role: z.string(), content: z.string().nullable().default(null) }))
  .min(1);

/** A conversation as JSON, as NeMo's chat route sends it, or else the text of one user's turn. */
function renderChat(model: ServedModel, prompt: string): string {
  if (model.chatTemplates === undefined) {
    throw new RequestError(component, "'apply_chat_template': expected a model with a chat template", {
      hint: `'${model.name}' has none: give the prompt as text`,
    });
  }
  const isJson = prompt.trimStart().startsWith("[");
  const messages: readonly ChatMessage[] = isJson
    ? parseMessage(component, messagesSchema, parseJson(component, new TextEncoder().encode(prompt)))
    : [{ role: "user", content: prompt }];
  return model.chatTemplates.render(messages, { addGenerationPrompt: true });
}

/** Special tokens in a prompt are themselves: clients write turns with them. An empty prompt is the beginning of a document. */
function encodePrompt({ tokenizer }: ServedModel, text: string, addBos: boolean): number[] {
  const ids = [...tokenizer.encode(text, { specialTokens: "parse" })];
  if (!addBos) return ids.length > 0 ? ids : [tokenizer.bosId ?? tokenizer.eosId];
  if (tokenizer.bosId === undefined)
    throw new RequestError(component, "'add_BOS': expected a model with a beginning token");
  return [tokenizer.bosId, ...ids];
}

function buildRequest(
  model: ServedModel,
  {
    ids,
    row,
    sampling,
    inputs,
    numRows,
    wanted,
  }: {
    ids: number[];
    row: number;
    sampling: RowSampling;
    inputs: Inputs;
    numRows: number;
    wanted: Wanted;
  },
): EngineRequest {
  const { maxContext, vocabSize } = model.engine.info;
  const room = maxContext - ids.length;
  if (room < 1) {
    throw new RequestError(
      component,
      `prompt ${row}: expected fewer than ${maxContext} tokens, the model's context, got ${ids.length}`,
    );
  }
  // An answer ends where the context does.
  const maxTokens = Math.min(sampling.maxTokens ?? defaultMaxTokens, room);
  const minTokens = Math.min(sampling.minTokens ?? 0, maxTokens);
  const stops = stopsOf(inputs, numRows, row);
  const { specialTokens } = model.tokenizer;
  const wantsAll = wanted.generationLogits.length > 0 || wanted.contextLogits;
  return {
    prompt: ids,
    sampling: parseSampling({ ...sampling, maxTokens, minTokens, stop: stops }),
    // A special token gives no text that a stop string could be found in.
    endTokens: stops.flatMap((stop) => specialTokens.get(stop) ?? []),
    numLogprobs: wantsAll ? vocabSize : atLeastOne(wanted.numTop, wanted.numJsonLogProbs),
    promptLogprobs: wanted.contextLogits
      ? vocabSize
      : (wanted.numJsonPromptLogProbs ??
        (wanted.echo && (wanted.logProbs || wanted.numTop > 0) ? wanted.numTop : undefined)),
  };
}

function atLeastOne(numTop: number, numJson: number | undefined): number | undefined {
  const count = Math.max(numTop, numJson ?? 0);
  return count === 0 ? undefined : count;
}

/** Stop strings: [words, 1] or [words] go for all prompts, as NeMo sends them; [N, words] for each its own. */
function stopsOf(inputs: Inputs, numRows: number, row: number): string[] {
  const names = ["stop_words_list", "stop_words", "end_strings", "stop"] as const;
  const all = names.flatMap((name) => {
    const tensor = inputs.tensor(name);
    return tensor === undefined ? [] : rowOrAll(tensor, numRows, row);
  });
  return [...new Set(all)].filter((stop) => stop !== "");
}

function rowOrAll(tensor: Tensor, numRows: number, row: number): string[] {
  const texts = readTexts(tensor);
  const [first, second = 1] = tensor.shape;
  if (tensor.shape.length !== 2 || second === 1 || first !== numRows) return texts;
  return texts.slice(row * second, (row + 1) * second);
}

function readBans(model: ServedModel, inputs: Inputs): Bans {
  const words = [...inputs.texts("bad_words_list"), ...inputs.texts("bad_words")].filter(
    (word) => word !== "",
  );
  const tensor = inputs.tensor("no_repeat_ngram_size");
  const sizes =
    tensor === undefined
      ? []
      : inputs.numbers(["no_repeat_ngram_size"], countOf(inputs, "no_repeat_ngram_size"), {
          min: 0,
          max: 1024,
        });
  const size = Math.max(0, ...sizes.map((value) => value ?? 0));
  if (!Number.isInteger(size))
    throw new RequestError(component, `'no_repeat_ngram_size': expected a whole number, got ${size}`);
  return bansOf(model.tokenizer, words, size);
}

/** An answer under bans is generated in parts, and these penalties count the tokens of the part alone. */
function checkPenalties({ sequences, ngramSize }: Bans, sampling: readonly RowSampling[]): void {
  if (sequences.length === 0 && ngramSize === 0) return;
  if (
    sampling.some(({ presencePenalty, frequencyPenalty }) => presencePenalty !== 0 || frequencyPenalty !== 0)
  ) {
    throw new RequestError(
      component,
      "expected no presence_penalty or frequency_penalty beside bad words or no_repeat_ngram_size",
      { hint: "repetition_penalty goes with them" },
    );
  }
}

const maxLogitBytes = 256 * 1024 * 1024;

function checkLogitBytes(model: ServedModel, requests: readonly EngineRequest[], wanted: Wanted): void {
  const { vocabSize } = model.engine.info;
  const numRows = requests.reduce(
    (total, { prompt, sampling }) =>
      total +
      (wanted.contextLogits ? prompt.length : 0) +
      sampling.maxTokens * wanted.generationLogits.length,
    0,
  );
  const bytes = numRows * vocabSize * Float32Array.BYTES_PER_ELEMENT;
  if (bytes <= maxLogitBytes) return;
  throw new RequestError(
    component,
    `expected logits of at most ${maxLogitBytes} bytes, got ${numRows} tokens of ${vocabSize} numbers`,
    { hint: "ask for fewer tokens, or for n_top_logprobs" },
  );
}
