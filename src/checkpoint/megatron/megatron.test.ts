import { describe, expect, it } from "vitest";
import { storedByteLength, tensorTable } from "../source.ts";
import type { StoredTensor, TensorSource } from "../source.ts";
import { mergeMegatronRanks } from "./canonical.ts";
import { huggingFaceConfig, huggingFaceFamily } from "./config.ts";
import type { MegatronConfig } from "./config.ts";
import { huggingFaceView, megatronView } from "./huggingFace.ts";
import { parseMegatronName } from "./names.ts";

// Whole checkpoints are compared with transformers' models in nemo/nemo.test.ts.

/** Tensors of u8 whose bytes count up from a start. */
function counting(tensors: Record<string, { shape: number[]; from?: number }>): TensorSource {
  const table = Object.entries(tensors).map(([name, { shape, from = 0 }]): [string, StoredTensor] => {
    const readRange = (into: Uint8Array, byteOffset: number): void => {
      for (let i = 0; i < into.length; i++) into[i] = from + byteOffset + i;
    };
    return [name, { dtype: "u8", shape, byteLength: storedByteLength("u8", shape), readRange }];
  });
  return tensorTable("here", new Map(table));
}

const config: MegatronConfig = {
  numLayers: 1,
  width: 2,
  ffnWidth: 2,
  numHeads: 2,
  numKvHeads: 1,
  headDim: 1,
  activation: "squared-relu",
  normalization: "layernorm1p",
  normEps: 1e-5,
  hasLinearBias: false,
  hasQkvBias: false,
  tiesEmbeddings: false,
  positions: "rope",
  rotaryFraction: 0.5,
  rotaryBase: 10000,
  maxPositions: 8,
  initStd: 0.01,
};

describe("names", () => {
  it.each([
    [
      "model.decoder.layers.7.self_attention.linear_qkv.layer_norm_bias",
      7,
      "self_attention.linear_qkv.layer_norm_bias",
    ],
    ["module.decoder.layers.mlp.linear_fc1.weight", "stacked", "mlp.linear_fc1.weight"],
    ["model.module.decoder.layers.0.pre_mlp_layernorm.weight", 0, "mlp.linear_fc1.layer_norm_weight"],
    [
      "model.language_model.encoder.layers.3.post_attention_layernorm.bias",
      3,
      "mlp.linear_fc1.layer_norm_bias",
    ],
    [
      "language_model.transformer.layers.3.attention.query_key_value.weight",
      3,
      "self_attention.linear_qkv.weight",
    ],
    ["model.language_model.encoder.layers.3.mlp.dense_4h_to_h.bias", 3, "mlp.linear_fc2.bias"],
    ["model.language_model.embedding.word_embeddings.weight", undefined, "embedding.word_embeddings.weight"],
    ["model.language_model.encoder.final_layernorm.bias", undefined, "decoder.final_layernorm.bias"],
    ["state_dict.model.output_layer.weight", undefined, "output_layer.weight"],
  ])("%s", (stored, layer, name) => {
    expect(parseMegatronName(stored)).toEqual({ name, layer });
  });

  it.each([
    "model.decoder.layers.1.self_attention.core_attention._extra_state",
    "module.decoder.layers.mlp.linear_fc1._extra_state/shard_0_32",
    "model.rotary_pos_emb.inv_freq",
    "optimizer.state.exp_avg.decoder.layers.mlp.linear_fc1.weight",
    "model.word_embeddings_for_head.weight",
  ])("%s is no weight", (stored) => {
    expect(parseMegatronName(stored)).toBe("ignored");
  });

  it.each([
    "model.decoder.layers.1.mlp.experts.linear_fc1.weight",
    "model.decoder.layers.1.self_attention.q_layernorm.weight",
    "model.decoder.layers.1.mlp.dense_h_to_4h_2.weight",
    "model.encoder.embeddings.weight",
  ])("%s belongs to another model", (stored) => {
    expect(parseMegatronName(stored)).toBeUndefined();
    expect(() => mergeMegatronRanks("here", [[counting({ [stored]: { shape: [1] } })]])).toThrow(
      `expected the tensors of a GPT decoder in here, got '${stored}'`,
    );
  });
});

describe("merging", () => {
  const name = "decoder.layers.0.mlp.linear_fc2.weight";

  it("refuses ranks of different shapes and missing tensors", () => {
    const a = counting({ [name]: { shape: [2, 2] } });
    const b = counting({ [name]: { shape: [2, 3] } });
    expect(() => mergeMegatronRanks("here", [[a, b]])).toThrow(
      `expected u8 (2, 2) of '${name}' in here, got u8 (2, 3) of rank 1`,
    );
    expect(() => mergeMegatronRanks("here", [[a, counting({})]])).toThrow("got none of rank 1");
  });

  it("refuses two spellings of one tensor", () => {
    const both = counting({
      [name]: { shape: [1] },
      "model.decoder.layers.0.mlp.dense_4h_to_h.weight": { shape: [1] },
    });
    expect(() => mergeMegatronRanks("here", [[both]])).toThrow(
      "got 'model.decoder.layers.0.mlp.dense_4h_to_h.weight' too",
    );
  });
});

const layer = "decoder.layers.0";
const whole = {
  "embedding.word_embeddings.weight": { shape: [3, 2] },
  [`${layer}.self_attention.linear_qkv.layer_norm_weight`]: { shape: [2] },
  [`${layer}.self_attention.linear_qkv.layer_norm_bias`]: { shape: [2] },
  [`${layer}.self_attention.linear_qkv.weight`]: { shape: [4, 2] },
  [`${layer}.self_attention.linear_proj.weight`]: { shape: [2, 2] },
  [`${layer}.mlp.linear_fc1.layer_norm_weight`]: { shape: [2] },
  [`${layer}.mlp.linear_fc1.layer_norm_bias`]: { shape: [2] },
  [`${layer}.mlp.linear_fc1.weight`]: { shape: [2, 2] },
  [`${layer}.mlp.linear_fc2.weight`]: { shape: [2, 2] },
  "decoder.final_layernorm.weight": { shape: [2] },
  "decoder.final_layernorm.bias": { shape: [2] },
  "output_layer.weight": { shape: [3, 2] },
};

describe("Hugging Face's names", () => {
  it("go there and back", () => {
    const there = huggingFaceView(counting(whole), config);
    expect([...there.read("model.layers.0.self_attn.k_proj.weight")]).toEqual([4, 5]);
    expect([...there.read("model.layers.0.self_attn.v_proj.weight")]).toEqual([6, 7]);
    const back = megatronView(there, config);
    expect([...back.read("model.decoder.layers.self_attention.linear_qkv.weight")]).toEqual([
      0, 1, 2, 3, 4, 5, 6, 7,
    ]);
    expect(back.info("model.decoder.layers.self_attention.linear_qkv.weight").shape).toEqual([1, 4, 2]);
  });

  it("regroup biases too", () => {
    const biases = {
      [`${layer}.self_attention.linear_qkv.bias`]: { shape: [4] },
      [`${layer}.self_attention.linear_proj.bias`]: { shape: [2], from: 10 },
      [`${layer}.mlp.linear_fc1.bias`]: { shape: [2], from: 20 },
      [`${layer}.mlp.linear_fc2.bias`]: { shape: [2], from: 30 },
    };
    const view = huggingFaceView(counting({ ...whole, ...biases }), {
      ...config,
      hasLinearBias: true,
      hasQkvBias: true,
    });
    expect([...view.read("model.layers.0.self_attn.q_proj.bias")]).toEqual([0, 1]);
    expect([...view.read("model.layers.0.self_attn.v_proj.bias")]).toEqual([3]);
    expect([...view.read("model.layers.0.mlp.up_proj.bias")]).toEqual([20, 21]);
    expect(() => huggingFaceView(counting({ ...whole, ...biases }), config)).toThrow(
      "expected only tensors of the configuration in here, got 'decoder.layers.0.self_attention.linear_qkv.bias'",
    );
  });

  it("refuse a wrong shape, a missing tensor, and two vocabularies", () => {
    const qkv = `${layer}.self_attention.linear_qkv.weight`;
    expect(() => huggingFaceView(counting({ ...whole, [qkv]: { shape: [6, 2] } }), config)).toThrow(
      `expected '${qkv}' of shape (4, 2) in here, got (6, 2)`,
    );
    const { [qkv]: _, ...others } = whole;
    expect(() => huggingFaceView(counting(others), config)).toThrow(
      `expected a tensor '${qkv}' in here, got none`,
    );
    expect(() =>
      huggingFaceView(counting({ ...whole, "output_layer.weight": { shape: [4, 2] } }), config),
    ).toThrow("one vocabulary in here, got 3 and 4 rows");
  });
});

describe("families", () => {
  it("are told from norm, activation and biases", () => {
    const llama = { ...config, normalization: "rmsnorm", activation: "fast-swiglu", rotaryFraction: 1 };
    expect(huggingFaceFamily(config)).toBe("nemotron");
    expect(huggingFaceFamily(llama)).toBe("llama");
    expect(huggingFaceFamily({ ...llama, hasQkvBias: true })).toBe("qwen2");
    expect(huggingFaceConfig(llama, { vocabSize: 3, dtype: "bfloat16" })).toMatchObject({
      rms_norm_eps: 1e-5,
    });
  });

  it.each([
    ["position_embedding_type: expected rope, got alibi", { positions: "alibi" }],
    [
      "normalization: expected layernorm with learned positions, got layernorm1p",
      { positions: "learned_absolute" },
    ],
    [
      "bias: expected true with learned positions, got false",
      { positions: "learned_absolute", normalization: "layernorm", activation: "gelu" },
    ],
    ["normalization: expected layernorm1p or rmsnorm, got layernorm", { normalization: "layernorm" }],
    ["activation: expected squared-relu, got gelu", { activation: "gelu" }],
    ["activation: expected fast-swiglu, got squared-relu", { normalization: "rmsnorm" }],
  ])("refuse %s", (message, changes) => {
    expect(() => huggingFaceFamily({ ...config, ...changes })).toThrow(message);
  });
});
