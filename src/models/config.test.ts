/** config.json of every family in the spellings of all ages, what is refused, and that what is written is read back as it was. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { ConfigError } from "../base/index.ts";
import type { DecoderConfig } from "./common/config.ts";
import { configText } from "./common/configText.ts";
import { rotaryFrequencies } from "./common/rotary.ts";
import { countParameters } from "./common/specs.ts";
import {
  checkModelConfig,
  modelFamily,
  modelPreset,
  modelPresetNames,
  parseModelConfig,
} from "./registry.ts";

const llama = {
  model_type: "llama",
  vocab_size: 100,
  hidden_size: 32,
  intermediate_size: 48,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  max_position_embeddings: 256,
};
const parse = (changes: object, base: object = llama): DecoderConfig =>
  parseModelConfig({ ...base, ...changes });

describe("spellings of all ages", () => {
  it("rotary base and scaling, before and after rope_parameters", () => {
    const scaling = { kind: "linear", factor: 4 };
    const older = { rope_theta: 5e5, rope_scaling: { type: "linear", factor: 4 } };
    const newer = { rope_parameters: { rope_type: "linear", rope_theta: 5e5, factor: 4 } };
    for (const keys of [older, newer, { ...older, ...newer }])
      expect(parse(keys).rotary).toEqual({ rotaryDim: 8, base: 5e5, scaling });
  });

  it("Llama 1's conversions and missing keys", () => {
    const { max_position_embeddings: _, ...rest } = llama;
    expect(parseModelConfig({ ...rest, max_sequence_length: 1024 }).maxPositions).toBe(1024);
    const bare = parseModelConfig({ model_type: "llama" });
    expect(bare).toMatchObject({
      vocabSize: 32000,
      width: 4096,
      ffnWidth: 11008,
      numKvHeads: 32,
      bosId: 1,
      eosId: 2,
    });
  });

  it("token ids: absent, null, one and several", () => {
    expect(parse({}).eosId).toBe(2);
    expect(parse({ eos_token_id: null }).eosId).toBeUndefined();
    expect(parse({ eos_token_id: 7 }).eosId).toBe(7);
    expect(parse({ eos_token_id: [9, 8] }).eosId).toBe(9);
  });

  it("heads of their own width, grouped or not", () => {
    expect(parse({ head_dim: 12, num_key_value_heads: 2 })).toMatchObject({ headDim: 12, numKvHeads: 2 });
    expect(parse({ num_key_value_heads: null }).numKvHeads).toBe(4);
    expect(() => parse({ hidden_size: 30 })).toThrow("head_dim: expected hidden_size 30 to be a multiple");
  });

  it("GPT-2 by its own names and by the common ones", () => {
    const own = { model_type: "gpt2", vocab_size: 50, n_embd: 12, n_layer: 2, n_head: 3, n_ctx: 64 };
    const common = {
      model_type: "gpt2",
      vocab_size: 50,
      hidden_size: 12,
      num_hidden_layers: 2,
      num_attention_heads: 3,
      max_position_embeddings: 64,
    };
    expect(parseModelConfig(own)).toEqual(parseModelConfig(common));
    expect(parseModelConfig(own)).toMatchObject({ ffnWidth: 48, maxPositions: 64, tiesEmbeddings: true });
  });

  it.each([
    ["gelu_new", "gelu-tanh"],
    ["gelu_fast", "gelu-tanh"],
    ["gelu", "gelu-erf"],
    ["relu", "relu"],
    ["silu", "silu"],
    ["swish", "silu"],
  ])("activation %s", (name, activation) => {
    expect(parseModelConfig({ model_type: "gpt2", activation_function: name }).activation).toBe(activation);
  });
});

describe("sliding windows", () => {
  const mistral = { ...llama, model_type: "mistral", num_key_value_heads: 2 };
  it("limit the positions, and say so", () => {
    const limited = parse({ sliding_window: 64 }, mistral);
    expect(limited.maxPositions).toBe(64);
    expect(limited.positionLimit).toMatch(/sliding window is 64 tokens; of 256 positions/);
    for (const window of [null, 256, 4096]) {
      const whole = parse({ sliding_window: window }, mistral);
      expect([whole.maxPositions, whole.positionLimit]).toEqual([256, undefined]);
    }
    expect(parse({ max_position_embeddings: 32768 }, mistral).maxPositions).toBe(4096);
  });

  it("of Qwen2 count only in layers that slide", () => {
    const qwen = { ...llama, model_type: "qwen2", num_key_value_heads: 2, sliding_window: 64 };
    expect(parse({}, qwen).maxPositions).toBe(256);
    expect(parse({ use_sliding_window: true }, qwen).maxPositions).toBe(256);
    expect(parse({ use_sliding_window: true, max_window_layers: 1 }, qwen).maxPositions).toBe(64);
    expect(parse({ layer_types: ["full_attention", "sliding_attention"] }, qwen).maxPositions).toBe(64);
    expect(parse({ layer_types: ["full_attention", "full_attention"] }, qwen).maxPositions).toBe(256);
    expect(() => parse({ layer_types: ["chunked_attention"] }, qwen)).toThrow("got chunked_attention");
  });
});

it.each<[object, string]>([
  [{ model_type: "bloom" }, "model_type to be one of nemotron, llama, mistral, qwen2, gpt2, got 'bloom'"],
  [{ hidden_act: "quick_gelu" }, "hidden_act: expected silu"],
  [
    { rope_scaling: { rope_type: "longrope", factor: 4 } },
    "rope_type: expected default or linear or dynamic or llama3 or yarn",
  ],
  [{ rope_scaling: { type: "mrope" } }, "got mrope"],
  [
    { rope_scaling: { type: "linear" } },
    "rope_scaling.factor: expected a positive number for rope_type linear, got null",
  ],
  [
    { rope_parameters: { full_attention: { rope_theta: 1 } } },
    "expected the same rotary positions in all layers, got full_attention",
  ],
  [{ quantization_config: { quant_method: "gptq" } }, "quantization_config: expected a model without it"],
  [{ num_local_experts: 8 }, "num_local_experts: expected a model without it, got 8"],
  [{ attn_logit_softcapping: 50 }, "attn_logit_softcapping"],
  [{ logit_scale: 0.5 }, "logit_scale"],
  [
    { model_type: "gpt2", scale_attn_by_inverse_layer_idx: true },
    "scale_attn_by_inverse_layer_idx: expected false",
  ],
  [{ model_type: "gpt2", add_cross_attention: true }, "add_cross_attention"],
  [{ model_type: "mistral", attention_bias: true }, "attention_bias: expected false for a mistral model"],
  [{ model_type: "nemotron", hidden_act: "silu" }, "hidden_act: expected relu2"],
  [{ num_key_value_heads: 3 }, "numHeads to be a multiple of numKvHeads"],
])("%o is refused by name", (changes, message) => {
  expect(() => parse(changes)).toThrow(ConfigError);
  expect(() => parse(changes)).toThrow(message);
});

it("shapes that a family's files cannot say are refused", () => {
  const gpt2 = modelPreset("gpt2-tiny");
  expect(checkModelConfig(gpt2)).toBe(gpt2);
  expect(() => checkModelConfig({ ...gpt2, numKvHeads: 2 })).toThrow("as many key heads as heads");
  expect(() => checkModelConfig({ ...gpt2, headDim: 16 })).toThrow("heads that share the width");
  const llama = modelPreset("llama-tiny");
  expect(checkModelConfig({ ...llama, numKvHeads: 1, headDim: 16, rotary: undefined }).headDim).toBe(16);
});

it("what turns a foreign feature off is no feature", () => {
  const off = {
    quantization_config: null,
    num_local_experts: 1,
    logit_scale: 1,
    final_logit_softcapping: null,
    alibi: false,
  };
  expect(parse(off)).toEqual(parse({}));
});

const fixtures = join(import.meta.dirname, "../../test/fixtures/golden/families");

it.each(readdirSync(fixtures))("the configuration of %s is written as it was read", (name) => {
  const json: unknown = JSON.parse(readFileSync(join(fixtures, name, "config.json"), "utf8"));
  const config = parseModelConfig(json);
  const written = modelFamily(config).writeConfig(config, "float32");
  expect({ ...parseModelConfig(written), positionLimit: config.positionLimit }).toEqual(config);
  // Readers of either age alone find everything.
  const { rope_parameters: _newer, ...older } = written;
  const { rope_scaling: _older, rope_theta: _theta, partial_rotary_factor: _share, ...newer } = written;
  for (const keys of [older, newer])
    expect({ ...parseModelConfig(keys), positionLimit: config.positionLimit }).toEqual(config);
});

it("real numbers are written as such, which some versions of transformers insist on", () => {
  const scaling = { kind: "linear", factor: 4 } as const;
  const config = { ...parse({}), rotary: { rotaryDim: 8, base: 10000, scaling } };
  const text = configText(modelFamily(config).writeConfig(config, "float32"));
  expect(text).toMatch(/"rope_scaling": \{\s+"type": "linear",\s+"factor": 4\.0\s+\}/);
  expect(text).toMatch(/"rope_theta": 10000\.0,/);
  expect(parseModelConfig(JSON.parse(text))).toEqual(config);
});

describe("presets", () => {
  // Parameters as the models' cards and papers give them, to the precision they give.
  it.each([
    ["nemotron-3-8b", 8_540_135_424],
    ["llama-2-7b", 6_738_415_616],
    ["llama-2-70b", 68_976_648_192],
    ["llama-3.1-8b", 8_030_261_248],
    ["llama-3.1-405b", 405_853_388_800],
    ["llama-3.2-1b", 1_235_814_400],
    ["tinyllama-1.1b", 1_100_048_384],
    ["mistral-7b-v0.1", 7_241_732_096],
    ["mistral-nemo-12b", 12_247_782_400],
    ["qwen2.5-0.5b", 494_032_768],
    ["qwen2.5-7b", 7_615_616_512],
    ["qwen2.5-72b", 72_706_203_648],
    ["gpt2", 124_439_808],
    ["gpt2-xl", 1_557_611_200],
  ])("%s has %i parameters", (name, count) => {
    expect(countParameters(modelPreset(name))).toBe(count);
  });

  it("all are whole, and known by other names too", () => {
    for (const name of modelPresetNames) {
      const config = modelPreset(name);
      const written = modelFamily(config).writeConfig(config, "bfloat16");
      expect(parseModelConfig(written), name).toEqual(config);
    }
    expect(modelPreset("Nemotron-3-8B-Base-4k")).toEqual(modelPreset("nemotron-3-8b"));
    expect(() => modelPreset("llama-3-9b")).toThrow("did you mean 'llama-3-8b'?");
  });
});

it("rotary frequencies end where their kind of scaling says", () => {
  const plain = rotaryFrequencies({ rotaryDim: 64, base: 500000 });
  const stretched = rotaryFrequencies({
    rotaryDim: 64,
    base: 500000,
    scaling: {
      kind: "llama3",
      factor: 8,
      lowFrequencyFactor: 1,
      highFrequencyFactor: 4,
      originalPositions: 8192,
    },
  });
  expect(stretched[0]).toBe(plain[0]);
  expect(stretched[31]).toBeCloseTo(plain[31] / 8, 15);
  const dynamic = rotaryFrequencies({ rotaryDim: 64, base: 500000, scaling: { kind: "dynamic", factor: 8 } });
  expect(dynamic).toEqual(plain);
});
