/**
 * NeMo's query client: the call of the Nemotron-3-8B model card, name by name, against Nautilus' server or a Triton that serves a
 * model exported by NeMo. As the original it reads the model's configuration first, and sends each value under the name and datatype
 * that the model has for it.
 * Source: NeMo, nemo/deploy (query classes from September 2023 on) as traced; the names of the methods and options are theirs.
 */
import { invariant, RequestError } from "../../base/index.ts";
import { type Datatype, readTexts, type Tensor, textTensor, zeros } from "../kserve/index.ts";
import { InferenceHttp } from "./inferenceHttp.ts";
import type { ModelDescription, TensorDescription } from "./inferenceHttp.ts";
import { inferInParts } from "./inferenceStream.ts";
import { QueryError } from "./queryError.ts";

export interface NemoQueryOptions {
  /** "localhost:8000" */
  url: string;
  model_name: string;
  /** Where the server asks for one. */
  api_key?: string;
  /** Seconds for one answer; undefined: as long as it takes. */
  request_timeout?: number;
}

export interface QueryLlmOptions {
  prompts: readonly string[];
  /** Tokens of each answer; 512 as in the card's time. `max_output_len` is its later name. */
  max_output_token?: number;
  max_output_len?: number;
  /** 1, the default: the most likely token each time. 0: all tokens. */
  top_k?: number;
  /** 0, the default: off. */
  top_p?: number;
  /** Default 1. */
  temperature?: number;
  random_seed?: number;
  repetition_penalty?: number;
  no_repeat_ngram_size?: number;
  stop_words_list?: readonly string[];
  bad_words_list?: readonly string[];
  /** Name of an adapter, for all prompts. */
  task_id?: string;
  lora_uids?: readonly string[];
  /** Seconds until server and model must be ready; 600 as in the card's time. */
  init_timeout?: number;
}

export interface QueryStreamOptions extends QueryLlmOptions {
  /** gRPC address; "localhost:8001" by default, as Triton's. */
  grpc_url?: string;
  signal?: AbortSignal;
}

type Value = number | string;

export class NemoQuery {
  readonly #options: NemoQueryOptions;
  readonly #client: InferenceHttp;

  /** Throws QueryError for an address that is none. */
  constructor(options: NemoQueryOptions) {
    this.#options = options;
    this.#client = new InferenceHttp({
      url: options.url,
      modelName: options.model_name,
      apiKey: options.api_key,
      requestTimeoutMs: options.request_timeout === undefined ? undefined : options.request_timeout * 1000,
    });
  }

  /**
   * The answers, one row of one text a prompt, [N][1], as the original's array has them. Throws QueryError when the server cannot be
   * reached or refuses, RequestError for options that no server could take.
   */
  async query_llm(options: QueryLlmOptions): Promise<string[][]> {
    const description = await this.#describe(options);
    const output = textOutput(description);
    const response = await this.#client.infer({
      parameters: {},
      inputs: inputTensors(description, options),
      outputs: [{ name: output.name, isBinary: true }],
    });
    return rowsOf(response.outputs, output.name);
  }

  /**
   * The answers so far, [N][1], each time something was added: NeMo's servers send the whole text again,
   * TensorRT-LLM's the new piece, which is added here. Over gRPC, as the original.
   * Leaving the loop early stops the generation. Throws as query_llm.
   */
  async *query_llm_streaming(options: QueryStreamOptions): AsyncGenerator<string[][]> {
    const description = await this.#describe(options);
    const output = textOutput(description);
    const parts = inferInParts(
      {
        url: options.grpc_url ?? "localhost:8001",
        modelName: this.#options.model_name,
        apiKey: this.#options.api_key,
        connectTimeoutMs: (options.init_timeout ?? defaultInitTimeout) * 1000,
        signal: options.signal,
      },
      {
        parameters: {},
        inputs: inputTensors(description, options),
        outputs: [{ name: output.name }],
      },
    );
    let soFar: string[][] = options.prompts.map(() => [""]);
    for await (const { outputs } of parts) {
      const rows = rowsOf(outputs, output.name);
      soFar =
        output.name === piecewiseOutput ? soFar.map(([text], row) => [text + (rows[row]?.[0] ?? "")]) : rows;
      yield soFar;
    }
  }

  async #describe({
    prompts,
    init_timeout = defaultInitTimeout,
  }: QueryLlmOptions): Promise<ModelDescription> {
    if (prompts.length === 0) throw new RequestError("query", "expected at least one prompt, got none");
    await this.#client.waitUntilReady(init_timeout * 1000);
    const description = await this.#client.describe();
    if (description.maxBatchSize === 0) {
      throw new QueryError("query", "expected a model that takes batches, got one with max_batch_size 0");
    }
    if (prompts.length > description.maxBatchSize) {
      throw new RequestError(
        "query",
        `expected at most ${description.maxBatchSize} prompts, the model's batch, got ${prompts.length}`,
      );
    }
    return description;
  }
}

const defaultInitTimeout = 600;
/** TensorRT-LLM's and vLLM's output, which streams pieces. */
const piecewiseOutput = "text_output";

/** The original's defaults, which are always sent. */
const cardDefaults = { max_output_token: 512, top_k: 1, top_p: 0, temperature: 1 };

/** Names that a value has had, the first that the model knows is taken. */
const spellings = {
  prompts: ["prompts", "text_input"],
  max_output_token: ["max_output_token", "max_output_len", "max_length", "max_tokens"],
  top_k: ["top_k"],
  top_p: ["top_p"],
  temperature: ["temperature"],
  random_seed: ["random_seed", "seed"],
  repetition_penalty: ["repetition_penalty"],
  no_repeat_ngram_size: ["no_repeat_ngram_size"],
  stop_words_list: ["stop_words_list", "stop_words", "end_strings"],
  bad_words_list: ["bad_words_list", "bad_words"],
  task_id: ["task_id"],
  lora_uids: ["lora_uids"],
} as const;

type ValueName = keyof typeof spellings;

function inputTensors(description: ModelDescription, options: QueryLlmOptions): Tensor[] {
  const { prompts, stop_words_list, bad_words_list, lora_uids } = options;
  const numPrompts = prompts.length;
  const perPrompt = (value: Value): Value[] => Array.from({ length: numPrompts }, () => value);
  const scalars: Partial<Record<ValueName, Value | undefined>> = {
    max_output_token: options.max_output_len ?? options.max_output_token ?? cardDefaults.max_output_token,
    top_k: options.top_k ?? cardDefaults.top_k,
    top_p: options.top_p ?? cardDefaults.top_p,
    temperature: options.temperature ?? cardDefaults.temperature,
    random_seed: options.random_seed,
    repetition_penalty: options.repetition_penalty,
    no_repeat_ngram_size: options.no_repeat_ngram_size,
    task_id: options.task_id,
  };
  const columns: [ValueName, readonly Value[]][] = [["prompts", prompts]];
  for (const name of Object.keys(scalars) as ValueName[]) {
    const value = scalars[name];
    if (value !== undefined) columns.push([name, perPrompt(value)]);
  }
  // Lists of words have as many rows as words, whatever the number of prompts.
  if (stop_words_list !== undefined) columns.push(["stop_words_list", stop_words_list]);
  if (bad_words_list !== undefined) columns.push(["bad_words_list", bad_words_list]);
  const tensors = columns.map(([name, values]) => columnTensor(inputOf(description, name), values));
  if (lora_uids !== undefined)
    tensors.push(repeatedRow(inputOf(description, "lora_uids"), lora_uids, numPrompts));
  return tensors;
}

function inputOf({ inputs }: ModelDescription, name: ValueName): TensorDescription & { datatype: Datatype } {
  const names: readonly string[] = spellings[name];
  const found = names
    .map((spelling) => inputs.find((input) => input.name === spelling))
    .find((input) => input !== undefined);
  if (found?.datatype === undefined) {
    throw new RequestError(
      "query",
      `${name}: expected an input of the model, got a model with ${inputs.map((input) => input.name).join(", ")}`,
    );
  }
  return { ...found, datatype: found.datatype };
}

/** values (N, 1) */
function columnTensor(
  { name, datatype }: { name: string; datatype: Datatype },
  values: readonly Value[],
): Tensor {
  const shape = [values.length, 1];
  if (datatype === "BYTES") return textTensor(name, shape, values.map(String));
  const data = zeros(datatype, values.length);
  for (const [index, value] of values.entries()) {
    if (typeof value !== "number")
      throw new RequestError("query", `${name}: expected numbers, got '${value}'`);
    if (data instanceof BigInt64Array || data instanceof BigUint64Array) data[index] = integer(name, value);
    else data[index] = value;
  }
  return { name, datatype, shape, data };
}

function integer(name: string, value: number): bigint {
  if (!Number.isSafeInteger(value)) {
    throw new RequestError("query", `${name}: expected a whole number, got ${value}`);
  }
  return BigInt(value);
}

/** The same row of texts for every prompt, (N, k). */
function repeatedRow({ name }: TensorDescription, row: readonly string[], numRows: number): Tensor {
  const texts = Array.from({ length: numRows }, () => row).flat();
  return textTensor(name, [numRows, row.length], texts);
}

function textOutput({ outputs }: ModelDescription): TensorDescription {
  const [first] = outputs;
  if (first === undefined || first.datatype !== "BYTES") {
    throw new QueryError(
      "query",
      `expected a model whose first output is text, got ${first?.name ?? "no outputs"}`,
    );
  }
  return first;
}

function rowsOf(outputs: readonly Tensor[], name: string): string[][] {
  const tensor = outputs.find((output) => output.name === name);
  if (tensor === undefined)
    throw new QueryError("query", `expected output '${name}' in the answer, got none`);
  const texts = readTexts(tensor);
  const [numRows = texts.length] = tensor.shape;
  const perRow = numRows === 0 ? 0 : texts.length / numRows;
  invariant(Number.isInteger(perRow), "a tensor has the elements its shape says");
  return Array.from({ length: numRows }, (_, row) => texts.slice(row * perRow, (row + 1) * perRow));
}
