/**
 * GGUF models under Hugging Face's names, with config.json from the metadata: architectures llama (Llama, Mistral), qwen2 and nemotron.
 * What llama.cpp's converter (convert_hf_to_gguf.py) did is undone: for llama the rows of each query and key head are interleaved for its
 * rotary kernel, for nemotron 1 is added to the norms' gains.
 */
import { CheckpointError, ConfigError, decodeValues, encodeValues, formatShape } from "../../base/index.ts";
import { cutBox, joinBoxes } from "../box.ts";
import type { RangeReader } from "../bytes.ts";
import type { ModelCard } from "../modelCard.ts";
import { throughTo } from "../megatron/canonical.ts";
import { storedDtypeBytes, tensorTable } from "../source.ts";
import type { StoredTensor, TensorSource } from "../source.ts";
import type { GgufFile, GgufValue } from "./reader.ts";
import { ggufRopeScaling } from "./rotary.ts";

const component = "gguf";
const families = ["llama", "qwen2", "nemotron"] as const;
type Family = (typeof families)[number];

/** Names within "blk.N." and within "model.layers.N.". */
const layerNames: ReadonlyMap<string, string> = new Map([
  ["attn_norm", "input_layernorm"],
  ["attn_q", "self_attn.q_proj"],
  ["attn_k", "self_attn.k_proj"],
  ["attn_v", "self_attn.v_proj"],
  ["attn_output", "self_attn.o_proj"],
  ["ffn_norm", "post_attention_layernorm"],
  ["ffn_gate", "mlp.gate_proj"],
  ["ffn_up", "mlp.up_proj"],
  ["ffn_down", "mlp.down_proj"],
]);
const otherNames: ReadonlyMap<string, string> = new Map([
  ["token_embd", "model.embed_tokens"],
  ["output_norm", "model.norm"],
  ["output", "lm_head"],
]);
/** Tables that the models compute themselves. */
const ignored = /^rope_freqs\.|\.attn_rot_embd\./;

export interface GgufModel extends Disposable {
  readonly config: Record<string, unknown>;
  /** Disposing it disposes the file. */
  readonly weights: TensorSource;
}

/** Reads the model in a file. Throws ConfigError, CheckpointError naming what no family has. */
export function ggufModel({ tensors, metadata }: GgufFile): GgufModel {
  const family = familyOf(metadata.get("general.architecture"));
  const config = readConfig(family, metadata, tensors);
  const table = new Map<string, StoredTensor>();
  for (const stored of tensors.names()) {
    if (ignored.test(stored)) continue;
    const name = huggingFaceName(stored);
    if (name === undefined) {
      throw new CheckpointError(
        component,
        `expected the tensors of a ${family} model in ${tensors.path}, got '${stored}'`,
        {
          fields: { name: stored },
        },
      );
    }
    table.set(name, restored(family, throughTo(tensors, stored), { name, config }));
  }
  const weights = tensorTable(tensors.path, table, { release: () => tensors.dispose() });
  return { config, weights, [Symbol.dispose]: () => weights.dispose() };
}

function familyOf(architecture: GgufValue | undefined): Family {
  const family = families.find((candidate) => candidate === architecture);
  if (family !== undefined) return family;
  throw new ConfigError(
    component,
    `general.architecture: expected ${families.join(", ")}, got ${JSON.stringify(architecture) ?? "nothing"}`,
  );
}

function huggingFaceName(stored: string): string | undefined {
  const [, layer, inner, suffix] = /^(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)$/.exec(stored) ?? [];
  if (inner === undefined) return undefined;
  if (layer === undefined) return otherNames.has(inner) ? `${otherNames.get(inner)}.${suffix}` : undefined;
  return layerNames.has(inner) ? `model.layers.${layer}.${layerNames.get(inner)}.${suffix}` : undefined;
}

interface Heads {
  readonly num_attention_heads: number;
  readonly num_key_value_heads: number;
  readonly head_dim: number;
}

function readConfig(
  family: Family,
  metadata: ReadonlyMap<string, GgufValue>,
  tensors: TensorSource,
): Record<string, unknown> & Heads {
  const optional = (key: string): number | undefined => {
    const value = metadata.get(`${family}.${key}`);
    if (value === undefined || typeof value === "number") return value;
    throw new ConfigError(
      component,
      `${family}.${key}: expected a number, got ${JSON.stringify(value).slice(0, 40)}`,
    );
  };
  const number = (key: string): number => {
    const value = optional(key);
    if (value === undefined)
      throw new ConfigError(component, `${family}.${key}: expected a number, got nothing`);
    return value;
  };
  const width = number("embedding_length");
  const numHeads = number("attention.head_count");
  const headDim = optional("attention.key_length") ?? width / numHeads;
  const base = optional("rope.freq_base") ?? 10000;
  const rotaryDim = optional("rope.dimension_count") ?? headDim;
  const normEps = number(
    family === "nemotron" ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon",
  );
  return {
    architectures: [
      { llama: "LlamaForCausalLM", qwen2: "Qwen2ForCausalLM", nemotron: "NemotronForCausalLM" }[family],
    ],
    model_type: family,
    vocab_size: tensors.info("token_embd.weight").shape[0],
    hidden_size: width,
    intermediate_size: number("feed_forward_length"),
    num_hidden_layers: number("block_count"),
    num_attention_heads: numHeads,
    num_key_value_heads: optional("attention.head_count_kv") ?? numHeads,
    head_dim: headDim,
    max_position_embeddings: number("context_length"),
    rope_theta: base,
    ...ggufRopeScaling({ family, metadata, tensors, base, rotaryDim }),
    tie_word_embeddings: !tensors.has("output.weight"),
    ...(family === "nemotron"
      ? {
          hidden_act: "relu2",
          norm_eps: normEps,
          partial_rotary_factor: rotaryDim / headDim,
        }
      : { hidden_act: "silu", rms_norm_eps: normEps }),
    ...tokenId(metadata, "bos", "bos"),
    ...tokenId(metadata, "eos", "eos"),
    ...tokenId(metadata, "pad", "padding"),
  };
}

/** What the file says of its license and origin (llama.cpp, docs: "general.*" keys). */
export function ggufCard(metadata: GgufFile["metadata"]): ModelCard {
  const text = (key: string): string | undefined => {
    const value = metadata.get(key);
    return typeof value === "string" && value !== "" ? value : undefined;
  };
  const base = text("general.base_model.0.repo_url")?.replace("https://huggingface.co/", "");
  return {
    license: text("general.license"),
    licenseName: text("general.license.name"),
    licenseLink: text("general.license.link"),
    baseModels: base === undefined ? [] : [base],
    text: undefined,
  };
}

function tokenId(
  metadata: ReadonlyMap<string, GgufValue>,
  key: string,
  stored: string,
): Record<string, unknown> {
  const id = metadata.get(`tokenizer.ggml.${stored}_token_id`);
  return id === undefined ? {} : { [`${key}_token_id`]: id };
}

/** The tensor as Hugging Face has it. */
function restored(
  family: Family,
  tensor: StoredTensor,
  { name, config }: { name: string; config: Heads },
): StoredTensor {
  if (family === "nemotron" && name.endsWith("norm.weight"))
    return { ...tensor, readRange: minusOne(tensor) };
  const projection = /self_attn\.([qk])_proj\./.exec(name)?.[1];
  if (family !== "llama" || projection === undefined) return tensor;
  const numHeads = projection === "q" ? config.num_attention_heads : config.num_key_value_heads;
  return { ...tensor, readRange: withoutInterleaving(tensor, { name, numHeads, headDim: config.head_dim }) };
}

/** Rows (head, pair, half) to (head, half, pair). */
function withoutInterleaving(
  { dtype, shape, readRange }: StoredTensor,
  { name, numHeads, headDim }: { name: string; numHeads: number; headDim: number },
): RangeReader {
  const [numRows, numColumns = 1] = shape;
  if (numRows !== numHeads * headDim || headDim % 2 !== 0) {
    throw new CheckpointError(
      component,
      `expected '${name}' with ${numHeads * headDim} rows, got shape ${formatShape(shape)}`,
    );
  }
  const itemBytes = storedDtypeBytes[dtype];
  const pairs = headDim / 2;
  const stored = { shape: [numHeads, pairs, 2, numColumns], itemBytes, readRange };
  const parts = [0, 1].map((half) => ({
    box: { start: [0, half, 0, 0], shape: [numHeads, 1, pairs, numColumns] },
    readRange: cutBox(stored, { start: [0, 0, half, 0], shape: [numHeads, pairs, 1, numColumns] }),
  }));
  return joinBoxes([numHeads, 2, pairs, numColumns], itemBytes, parts);
}

function minusOne({ dtype, byteLength, readRange }: StoredTensor): RangeReader {
  if (dtype !== "f32" && dtype !== "f16" && dtype !== "bf16") return readRange;
  return (into, byteOffset) => {
    // Norms are short: the whole is converted for any range.
    const bytes = new Uint8Array(byteLength);
    readRange(bytes, 0);
    const values = decodeValues(dtype, bytes).map((value) => value - 1);
    into.set(encodeValues(dtype, values).subarray(byteOffset, byteOffset + into.byteLength));
  };
}
