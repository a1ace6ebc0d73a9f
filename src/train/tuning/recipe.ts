/** Recipes of tuning: base, method, objective, data and how long, as one strict schema. */
import { z } from "zod";
import { ConfigError, nearest, parseConfig } from "../../base/index.ts";
import { adapterMethods, adapterSchema, parseAdapterConfig } from "../../models/index.ts";
import type { AdapterConfig, AdapterConfigInput } from "../../models/index.ts";
import type { PreferenceObjective } from "./objective.ts";

const count = z.int().positive();
const files = z.union([z.string().transform((file) => [file]), z.array(z.string()).nonempty()]);

const objectiveKinds = ["sft", "dpo", "ipo", "rpo-sq", "rpo-bwd-kl", "rpo-fwd-kl", "kto"] as const;
const objectiveFields = z.strictObject({
  kind: z.enum(objectiveKinds),
  beta: z.number().positive().default(0.1),
  labelSmoothing: z.number().min(0).max(0.5).default(0),
  sftWeight: z.number().nonnegative().default(0),
  eta: z.number().positive().default(1),
  desirableWeight: z.number().positive().default(1),
  undesirableWeight: z.number().positive().default(1),
  /** Reference log-probabilities before the first step instead of a second forward pass in each. */
  precomputeReference: z.boolean().default(false),
});

export const tuneSchema = z.strictObject({
  run: z.string().min(1).describe("folder of the run: adapter, checkpoints, metrics"),
  model: z.string().min(1).describe("base: a run, a checkpoint or a model of any format"),
  tokenizer: z.string().optional(),
  method: z.custom<string | AdapterConfigInput | { method: "full" }>().default("lora"),
  objective: z
    .union([z.enum(objectiveKinds).transform((kind) => objectiveFields.parse({ kind })), objectiveFields])
    .prefault("sft"),
  data: z.strictObject({
    train: files,
    validation: z.array(z.string()).default([]),
    validationShare: z
      .number()
      .min(0)
      .lt(1)
      .default(0.05)
      .describe("of train, where validation names no file"),
    promptTemplate: z.string().default("{input} {output}"),
    chat: z
      .enum(["nemotron", "steerlm", "model"])
      .optional()
      .describe("model where it has a template, else nemotron"),
    addBos: z.boolean().default(true),
    addEos: z.boolean().default(true),
    answerOnly: z.boolean().default(true),
    cut: z.enum(["left", "right"]).default("left"),
    packing: z.boolean().default(true),
    sharePrompts: z
      .boolean()
      .default(true)
      .describe("texts that are compared are computed once where they begin alike; with packing only"),
    shuffle: z.boolean().default(true),
  }),
  maxLength: count
    .optional()
    .describe("of a text, and of a packed row; 2048 or what the model takes when absent"),
  epochs: z.number().positive().default(3),
  steps: count.optional().describe("instead of epochs"),
  batchSize: count.default(8).describe("rows of one optimizer step"),
  microBatch: count.default(1).describe("rows that are forward and backward at once"),
  precision: z.enum(["f32", "bf16"]).optional().describe("of base and adapter; the base's when absent"),
  quantise: z
    .enum(["int8", "nf4", "int4", "fp8"])
    .optional()
    .describe("the base's blocks in 8 or 4 bits (QLoRA)"),
  recompute: z.enum(["none", "norm-activation", "block"]).default("none"),
  lossChunkBytes: count.optional(),
  optim: z
    .strictObject({
      lr: z.number().positive().optional().describe("by method and objective when absent"),
      minLr: z.number().nonnegative().default(0),
      warmupShare: z.number().min(0).lt(1).default(0.03),
      betas: z.tuple([z.number().min(0).lt(1), z.number().min(0).lt(1)]).default([0.9, 0.98]),
      eps: z.number().positive().default(1e-8),
      weightDecay: z.number().nonnegative().default(0.01),
      clip: z.number().nonnegative().default(1),
      moments: z.enum(["f32", "bf16"]).default("f32"),
      master: z.boolean().default(true),
    })
    .prefault({}),
  evaluation: z
    .strictObject({
      everySteps: z.int().nonnegative().default(50),
      patience: z
        .int()
        .nonnegative()
        .default(0)
        .describe("evaluations without gain before the end; 0 for never"),
      keepBest: z.int().nonnegative().default(1),
    })
    .prefault({}),
  checkpoint: z
    .strictObject({ everySteps: z.int().nonnegative().default(200), keep: count.default(2) })
    .prefault({}),
  device: z.enum(["auto", "cpu", "cuda", "reference"]).default("auto"),
  threads: count.optional(),
  seed: z
    .int()
    .nonnegative()
    .max(2 ** 28)
    .default(1234),
  tensorboard: z.boolean().default(true),
});

/** A tuning recipe as its author writes it. */
export type TuneRecipeInput = z.input<typeof tuneSchema>;
/** With every field filled in; without an adapter, all weights are trained. */
export type TuneRecipe = Omit<z.output<typeof tuneSchema>, "method"> & { method: AdapterConfig | undefined };

/** Types a recipe file: `export default defineTune({ … })`. */
export function defineTune(recipe: TuneRecipeInput): TuneRecipeInput {
  return recipe;
}

/** `rank` for `method.rank`: the recipe's schema knows no method's fields. Throws ConfigError. */
function refuseMethodFields(value: unknown): void {
  const methodKeys = adapterSchema.options.flatMap((option) => Object.keys(option.shape));
  const isMisplaced = (key: string): boolean =>
    methodKeys.includes(key) && !Object.hasOwn(tuneSchema.shape, key);
  const key = typeof value === "object" && value !== null ? Object.keys(value).find(isMisplaced) : undefined;
  if (key === undefined) return;
  throw new ConfigError("recipe", `expected a known key, got '${key}'`, {
    hint: `did you mean 'method.${key}'?`,
    fields: { key },
  });
}

/** Fills in and checks a tuning recipe. Throws ConfigError. */
export function parseTuneRecipe(value: unknown): TuneRecipe {
  refuseMethodFields(value);
  const { method, ...recipe } = parseConfig("recipe", tuneSchema, value);
  const given = typeof method === "string" ? { method } : method;
  const name: unknown = given.method;
  const methods: readonly string[] = ["full", ...adapterMethods];
  if (typeof name !== "string" || !methods.includes(name)) {
    const near = typeof name === "string" ? nearest(name, methods) : undefined;
    throw new ConfigError(
      "recipe",
      `method: expected one of ${methods.join(", ")}, got ${JSON.stringify(name)}`,
      near === undefined ? {} : { hint: `did you mean '${near}'?` },
    );
  }
  if (recipe.microBatch > recipe.batchSize || recipe.batchSize % recipe.microBatch !== 0) {
    throw new ConfigError(
      "recipe",
      `batchSize: expected a multiple of microBatch ${recipe.microBatch}, got ${recipe.batchSize}`,
    );
  }
  const adapter = name === "full" ? undefined : parseAdapterConfig(given);
  if (adapter?.method === "dora" && recipe.quantise !== undefined) {
    throw new ConfigError("recipe", `quantise: expected none with dora, got ${recipe.quantise}`, {
      hint: "DoRA needs the base's weights in floats; lora takes a quantised base",
    });
  }
  const needsReference = recipe.objective.kind !== "sft" && adapter === undefined;
  if (needsReference && !recipe.objective.precomputeReference) {
    throw new ConfigError("recipe", `expected an adapter for ${recipe.objective.kind}, got method full`, {
      hint: "the reference is the base with the adapter off; or set objective.precomputeReference",
    });
  }
  return { ...recipe, method: adapter };
}

/** The learning rate of a recipe: its own, or the usual one of the method. */
export function tuningRate({ optim, method, objective }: TuneRecipe): number {
  if (optim.lr !== undefined) return optim.lr;
  const scale = objective.kind === "sft" ? 1 : 0.1;
  switch (method?.method) {
    case undefined:
      return 5e-6 * scale;
    case "ia3":
      return 3e-3 * scale;
    case "prompt-tuning":
    case "p-tuning":
      return 1e-2 * scale;
    default:
      return 1e-4 * scale;
  }
}

/** The objective as the losses take it; undefined for the next token. */
export function preferenceObjective({ objective }: TuneRecipe): PreferenceObjective | undefined {
  const { kind, precomputeReference: _, ...rest } = objective;
  return kind === "sft" ? undefined : { kind, ...rest };
}
