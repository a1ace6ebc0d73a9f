/** What an adapter is, as recipes and files say it: one strict schema per method. */
import { z } from "zod";
import { parseConfig } from "../../base/index.ts";

const count = z.int().positive();
const share = z.number().min(0).lt(1);
const names = z.union([z.string().transform((name) => [name]), z.array(z.string()).nonempty()]);
const layers = z.array(z.int().nonnegative()).nonempty().optional().describe("only these layers, from 0");
const activationName = z.enum(["silu", "gelu-tanh", "gelu-erf", "relu", "squared-relu", "tanh"]);

const lowRank = {
  targets: names
    .prefault("all")
    .describe("modules by name, path or wildcard, or all, attention, mlp, attention_qkv, …"),
  exclude: z.array(z.string()).default([]),
  layers,
  rank: count.default(16),
  alpha: z.number().positive().optional().describe("twice the rank when absent"),
  rsLora: z.boolean().default(false).describe("scale by alpha / sqrt(rank) instead of alpha / rank"),
  dropout: share.default(0).describe("on the adapter's input"),
  init: z.enum(["kaiming", "gaussian", "xavier"]).default("kaiming").describe("of A; B begins at zero"),
  /** By module, where some differ (PEFT's rank_pattern and alpha_pattern). */
  rankPattern: z.record(z.string(), count).default({}),
  alphaPattern: z.record(z.string(), z.number().positive()).default({}),
};

export const loraSchema = z.strictObject({ method: z.literal("lora"), ...lowRank });
export const doraSchema = z.strictObject({ method: z.literal("dora"), ...lowRank });
export const ia3Schema = z.strictObject({
  method: z.literal("ia3"),
  targets: names.optional().describe("keys, values and the down projection when absent"),
  feedforward: names.optional().describe("targets whose input is scaled; the down projection when absent"),
  layers,
});
const bottleneck = {
  dim: count.default(32),
  dropout: share.default(0).describe("on the adapter's output"),
  layers,
  sublayers: z
    .array(z.enum(["attention", "mlp"]))
    .nonempty()
    .default(["attention", "mlp"]),
};
export const houlsbySchema = z.strictObject({
  method: z.literal("houlsby"),
  ...bottleneck,
  activation: activationName.default("silu"),
  norm: z.boolean().default(true).describe("layer norm before the bottleneck"),
});
export const parallelSchema = z.strictObject({
  method: z.literal("parallel"),
  ...bottleneck,
  activation: activationName.default("relu"),
  norm: z.boolean().default(false),
  scale: z.number().positive().default(1),
});
export const promptTuningSchema = z.strictObject({
  method: z.literal("prompt-tuning"),
  numTokens: count.default(20).describe("virtual tokens before each text"),
  initStd: z.number().positive().default(0.02),
  initTokens: z
    .array(z.int().nonnegative())
    .nonempty()
    .optional()
    .describe("begin as the embeddings of these tokens, repeated"),
});
export const pTuningSchema = z.strictObject({
  method: z.literal("p-tuning"),
  numTokens: count.default(20),
  encoder: z
    .enum(["mlp", "lstm", "mlp-gelu"])
    .default("mlp")
    .describe("mlp, lstm: PEFT's; mlp-gelu: two layers, NeMo's"),
  hidden: count.optional().describe("width of the encoder; the model's when absent, 1024 for mlp-gelu"),
  numLayers: count.max(8).default(1).describe("of the LSTM"),
  initStd: z.number().positive().default(0.02),
});

export const adapterSchema = z.discriminatedUnion("method", [
  loraSchema,
  doraSchema,
  ia3Schema,
  houlsbySchema,
  parallelSchema,
  promptTuningSchema,
  pTuningSchema,
]);

export type LoraConfig = z.output<typeof loraSchema> | z.output<typeof doraSchema>;
export type Ia3Config = z.output<typeof ia3Schema>;
export type BottleneckConfig = z.output<typeof houlsbySchema> | z.output<typeof parallelSchema>;
export type PromptConfig = z.output<typeof promptTuningSchema> | z.output<typeof pTuningSchema>;
export type AdapterConfig = z.output<typeof adapterSchema>;
export type AdapterConfigInput = z.input<typeof adapterSchema>;
export type AdapterMethod = AdapterConfig["method"];
export const adapterMethods: readonly AdapterMethod[] = [
  "lora",
  "dora",
  "ia3",
  "houlsby",
  "parallel",
  "prompt-tuning",
  "p-tuning",
];

/** Fills in and checks an adapter's configuration. Throws ConfigError. */
export function parseAdapterConfig(value: unknown): AdapterConfig {
  const method: unknown =
    typeof value === "object" && value !== null && "method" in value ? value.method : undefined;
  // The schema of the method alone knows the keys that a misspelt one may have meant.
  const schema = adapterSchema.options.find((option) => option.shape.method.value === method);
  return parseConfig("adapter", schema ?? adapterSchema, value);
}
