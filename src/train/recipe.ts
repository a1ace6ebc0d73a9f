/**
 * Recipes: everything that defines a training run, as one strict schema. The defaults are those of the Nemotron-3-8B model
 * card; anything a recipe does not say is the card's. `--set optim.lr=1e-3` changes a field by its path.
 */
import { z } from "zod";
import { ConfigError, parseConfig } from "../base/index.ts";
import { sourceSchema } from "../data/index.ts";

const count = z.int().positive();

export const optimSchema = z.strictObject({
  lr: z.number().positive().default(3e-4).describe("peak learning rate"),
  minLr: z.number().nonnegative().default(3e-5).describe("floor of the learning rate"),
  warmupTokens: z.int().nonnegative().default(500_000_000).describe("tokens of the linear warm-up"),
  decayFraction: z
    .number()
    .positive()
    .max(1)
    .default(0.95)
    .describe("share of all tokens at which the cosine reaches the floor"),
  betas: z.tuple([z.number().min(0).lt(1), z.number().min(0).lt(1)]).default([0.9, 0.95]),
  eps: z.number().positive().default(1e-8),
  weightDecay: z.number().nonnegative().default(0.1).describe("on matrices; norms and biases have none"),
  clip: z
    .number()
    .nonnegative()
    .default(1)
    .describe("largest global norm of the gradients; 0 turns clipping off"),
  moments: z.enum(["f32", "bf16"]).default("f32"),
  master: z.boolean().default(true).describe("f32 master copy of bf16 weights; false rounds stochastically"),
  spikeFactor: z
    .number()
    .nonnegative()
    .default(0)
    .describe("skip a step whose gradient norm is this many times the running mean; 0 for never"),
  maxSkippedSteps: count.default(10).describe("stop after so many skipped steps in a row"),
});

const modelOverrides = z.strictObject({
  preset: z.string().default("nemotron-tiny"),
  vocabSize: count.optional(),
  width: count.optional(),
  ffnWidth: count.optional(),
  numLayers: count.optional(),
  numHeads: count.optional(),
  numKvHeads: count.optional(),
  headDim: count.optional(),
  initStd: z.number().positive().optional(),
});

/** Text (a path, or a source with its options), or token files that are there already. */
const trainingSource = z.union([
  z.string().transform((source) => ({ source, weight: undefined })),
  z.strictObject({ source: sourceSchema, weight: z.number().positive().optional() }),
  z.strictObject({
    prefix: z.string().describe("path of a .bin/.idx pair without its ending"),
    weight: z.number().positive().optional(),
  }),
]);

const validationSource = z.strictObject({ name: z.string().default("validation"), source: sourceSchema });

export const recipeSchema = z.strictObject({
  run: z.string().min(1).describe("folder of the run: checkpoints, metrics, prepared data"),
  model: z
    .union([z.string().transform((preset) => modelOverrides.parse({ preset })), modelOverrides])
    .prefault({}),
  tokenizer: z
    .strictObject({
      path: z.string().optional().describe("tokenizer.json to use; absent: train one on the data"),
      vocabSize: count.default(32768),
      sampleBytes: count.default(100_000_000),
    })
    .prefault({}),
  data: z.strictObject({
    train: z.union([trainingSource.transform((member) => [member]), z.array(trainingSource).nonempty()]),
    validation: z
      .array(validationSource)
      .default([])
      .describe("held-out text, by group; absent: split off the training documents"),
    split: z
      .string()
      .regex(/^\d+(\.\d+)?(,\d+(\.\d+)?){2}$/)
      .default("98,2,0")
      .describe("shares of train, validation and test documents"),
    workers: count.optional(),
    eodMaskLoss: z.boolean().default(false),
    resetPositions: z.boolean().default(false),
    resetAttention: z.boolean().default(false),
  }),
  sequenceLength: count.default(4096),
  totalTokens: count,
  batchTokens: count.describe("tokens of one optimizer step"),
  batchRamp: z.array(z.strictObject({ untilTokens: count, batchTokens: count })).default([]),
  microBatchSequences: count.default(1).describe("sequences that are forward and backward at once"),
  precision: z.enum(["f32", "bf16"]).default("bf16"),
  gradients: z
    .enum(["f32", "bf16"])
    .optional()
    .describe("dtype of the gradients; that of the weights when absent"),
  recompute: z.enum(["none", "norm-activation", "block"]).default("none"),
  lossChunkBytes: count.optional(),
  optim: optimSchema.prefault({}),
  device: z.enum(["auto", "cpu", "cuda", "reference"]).default("auto"),
  threads: count.optional(),
  seed: z
    .int()
    .nonnegative()
    .max(2 ** 28)
    .default(1234),
  evaluation: z
    .strictObject({ everySteps: z.int().nonnegative().default(100), maxTokens: count.default(1_000_000) })
    .prefault({}),
  checkpoint: z
    .strictObject({ everySteps: z.int().nonnegative().default(200), keep: count.default(2) })
    .prefault({}),
  tensorboard: z.boolean().default(true),
});

/** A recipe as its author writes it. */
export type RecipeInput = z.input<typeof recipeSchema>;
/** A recipe with every field filled in. */
export type Recipe = z.output<typeof recipeSchema>;

/** Types a recipe file: `export default defineRecipe({ ... })`. */
export function defineRecipe(recipe: RecipeInput): RecipeInput {
  return recipe;
}

/** Fills in and checks a recipe. Throws ConfigError. */
export function parseRecipe(value: unknown): Recipe {
  return parseConfig("recipe", recipeSchema, value);
}

/** `recipe` (of a training or a tuning) with `a.b.c=value` applied; the value is read as JSON where it parses and as text otherwise. Throws ConfigError. */
export function withAssignment(recipe: unknown, assignment: string): unknown {
  const separator = assignment.indexOf("=");
  if (separator <= 0) {
    throw new ConfigError("--set", `expected path=value, got '${assignment}'`, {
      hint: "for example --set optim.lr=1e-3",
    });
  }
  return withField(
    recipe,
    assignment.slice(0, separator).split("."),
    parseScalar(assignment.slice(separator + 1)),
  );
}

/** Groups that may be written as one name, with the field that it is: `objective: "dpo"` is `objective: { kind: "dpo" }`. */
const shortForms: ReadonlyMap<string, string> = new Map([
  ["model", "preset"],
  ["method", "method"],
  ["objective", "kind"],
]);

function withField(value: unknown, path: readonly string[], leaf: unknown): unknown {
  if (path.length === 0) return leaf;
  const [key, ...rest] = path;
  if (value !== undefined && (typeof value !== "object" || value === null)) {
    throw new ConfigError(
      "--set",
      `expected a group of fields before '${key}', got ${JSON.stringify(value)}`,
    );
  }
  if (Array.isArray(value))
    return value.map((entry, index) => (String(index) === key ? withField(entry, rest, leaf) : entry));
  const fields = new Map<string, unknown>(Object.entries(value ?? {}));
  const given = fields.get(key);
  const named = shortForms.get(key);
  const isShort = named !== undefined && typeof given === "string" && rest.length > 0;
  fields.set(key, withField(isShort ? { [named]: given } : given, rest, leaf));
  return Object.fromEntries(fields);
}

function parseScalar(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
