/**
 * The tensors of a served language model: the union of what NeMo's query classes send over the years, and of the tensors of
 * TensorRT-LLM's and vLLM's Triton models, so that each finds its own. Order matters: clients may give inputs by position, and NeMo's
 * read the first output's type.
 * Sources: NeMo (nemo/deploy, nemo_deploy: query classes and deployables), Triton's TensorRT-LLM and vLLM backends.
 */
import { type Datatype, toConfigName } from "../../kserve/index.ts";

const ofInputs = {
  prompts: "BYTES",
  max_output_token: "INT64",
  top_k: "INT64",
  top_p: "FP32",
  temperature: "FP32",
  text_input: "BYTES",
  max_output_len: "INT64",
  max_length: "INT64",
  max_tokens: "INT64",
  min_output_len: "INT64",
  min_length: "INT64",
  min_tokens: "INT64",
  random_seed: "INT64",
  seed: "INT64",
  repetition_penalty: "FP32",
  presence_penalty: "FP32",
  frequency_penalty: "FP32",
  min_p: "FP32",
  stop_words_list: "BYTES",
  stop_words: "BYTES",
  end_strings: "BYTES",
  bad_words_list: "BYTES",
  bad_words: "BYTES",
  no_repeat_ngram_size: "FP32",
  task_id: "BYTES",
  lora_uids: "BYTES",
  use_greedy: "BOOL",
  add_BOS: "BOOL",
  all_probs: "BOOL",
  compute_logprob: "BOOL",
  n_top_logprobs: "INT64",
  n_log_probs: "INT64",
  n_prompt_log_probs: "INT64",
  output_context_logits: "BOOL",
  output_generation_logits: "BOOL",
  output_logits: "BOOL",
  output_scores: "BOOL",
  apply_chat_template: "BOOL",
  echo: "BOOL",
  max_batch_size: "INT64",
  beam_width: "INT64",
  length_penalty: "FP32",
  stream: "BOOL",
  streaming: "BOOL",
  stop: "BYTES",
} as const satisfies Record<string, Datatype>;

export type InputName = keyof typeof ofInputs;
export const inputDatatypes: Readonly<Record<InputName, Datatype>> = ofInputs;
export const inputNames: readonly string[] = Object.keys(ofInputs);

export function isInputName(name: string): name is InputName {
  return Object.hasOwn(ofInputs, name);
}

/** Outputs; those that a request did not ask to be computed are not in its answer. */
const ofOutputs = {
  outputs: { datatype: "BYTES", dims: [1] },
  sentences: { datatype: "BYTES", dims: [1] },
  text_output: { datatype: "BYTES", dims: [1] },
  log_probs: { datatype: "FP32", dims: [-1] },
  top_logprobs: { datatype: "BYTES", dims: [1] },
  prompt_log_probs: { datatype: "BYTES", dims: [-1] },
  generation_logits: { datatype: "FP32", dims: [1, -1, -1] },
  context_logits: { datatype: "FP32", dims: [-1, -1] },
  logits: { datatype: "FP32", dims: [-1, -1] },
  scores: { datatype: "FP32", dims: [-1, -1] },
} as const satisfies Record<string, { datatype: Datatype; dims: readonly number[] }>;

export type OutputName = keyof typeof ofOutputs;
export const outputNames: readonly string[] = Object.keys(ofOutputs);

export function isOutputName(name: string): name is OutputName {
  return Object.hasOwn(ofOutputs, name);
}

const platform = "nautilus";

export interface ModelDescription {
  name: string;
  maxBatchSize: number;
  /** Whether a request may have several answers: what PyTriton's DecoupledModelClient asks for. */
  isDecoupled: boolean;
}

/** The model's configuration in Triton's terms (ModelConfig of the .proto; the same names in JSON). */
export function modelConfig({ name, maxBatchSize, isDecoupled }: ModelDescription) {
  return {
    name,
    platform,
    backend: platform,
    max_batch_size: maxBatchSize,
    input: Object.entries(ofInputs).map(([input, datatype]) => ({
      name: input,
      data_type: toConfigName(datatype),
      dims: [-1],
      optional: input !== "prompts",
    })),
    output: Object.entries(ofOutputs).map(([output, { datatype, dims }]) => ({
      name: output,
      data_type: toConfigName(datatype),
      dims: [...dims],
    })),
    model_transaction_policy: { decoupled: isDecoupled },
  };
}

/** The model's metadata in the protocol's terms; the batch is the first dimension. */
export function modelMetadata({ name }: ModelDescription) {
  return {
    name,
    versions: ["1"],
    platform,
    inputs: Object.entries(ofInputs).map(([input, datatype]) => ({ name: input, datatype, shape: [-1, -1] })),
    outputs: Object.entries(ofOutputs).map(([output, { datatype, dims }]) => ({
      name: output,
      datatype,
      shape: [-1, ...dims],
    })),
  };
}
