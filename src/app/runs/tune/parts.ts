/** What the verbs of tuning work on: an open base, an adapter beside it, and rows of data. */
import { modelFamily, saveAdapter } from "../../../models/index.ts";
import type { Adapter, Decoder } from "../../../models/index.ts";
import type { Device } from "../../../device/index.ts";
import type { Context } from "../../../tensor/index.ts";
import { preferenceObjective, PreferenceStep, TrainingStep, TuningRows } from "../../../train/index.ts";
import type { AdamW, StepRunner, TuneRecipe, TuningBatchOptions } from "../../../train/index.ts";
import type { PreparedTuning } from "./prepare.ts";

export interface Parts {
  prepared: PreparedTuning;
  context: Context;
  decoder: Decoder;
  adapter: Adapter | undefined;
  optimizer: AdamW;
  data: TuningRows;
  validation: TuningRows | undefined;
}

/** How examples become rows of batches. */
export function batchOptions({
  recipe,
  config,
  tokenizer,
  maxLength,
  numVirtualTokens,
}: PreparedTuning): TuningBatchOptions {
  return {
    length: maxLength + numVirtualTokens,
    packing: recipe.data.packing,
    sharePrompts: recipe.data.sharePrompts,
    seed: recipe.seed,
    shuffle: recipe.data.shuffle,
    padId: tokenizer.padId ?? tokenizer.eosId,
    prefix: Array.from({ length: numVirtualTokens }, (_, i) => config.vocabSize + i),
  };
}

export function tuningRows(prepared: PreparedTuning): Pick<Parts, "data" | "validation"> {
  const { train, validation } = prepared;
  const options = batchOptions(prepared);
  return {
    data: new TuningRows(train, options),
    validation: validation.length === 0 ? undefined : new TuningRows(validation, options),
  };
}

/** The adapter's part of a checkpoint; undefined where all weights are trained. */
export function checkpointOf({ context, decoder, adapter, prepared }: Parts) {
  return (
    adapter && {
      parameters: adapter.parameters,
      saveFiles: (folder: string): void =>
        saveAdapter(context, adapter, {
          decoder,
          family: modelFamily(decoder.config),
          folder,
          baseModel: prepared.recipe.model,
        }),
    }
  );
}

/** Memory for the logits of one chunk: large matrices for a GPU, a share of the cache for a CPU. */
export function chunkBytesOf({ lossChunkBytes }: TuneRecipe, { kind }: Pick<Device, "kind">): number {
  return lossChunkBytes ?? (kind === "cuda" ? 2 ** 30 : 2 ** 24);
}

/** What every kind of step is made of. */
function stepParts({ prepared: { recipe }, context, decoder, optimizer, adapter }: Parts) {
  const { recompute } = recipe;
  return { decoder, optimizer, adapter, recompute, chunkBytes: chunkBytesOf(recipe, context.device) };
}

/** A step of the recipe's objective; the caller disposes it. */
export function tuneStep(parts: Parts): StepRunner {
  const { context, prepared } = parts;
  const objective = preferenceObjective(prepared.recipe);
  const shared = stepParts(parts);
  return objective === undefined
    ? new TrainingStep(context, shared)
    : new PreferenceStep(context, { ...shared, objective });
}

/** Measures the reference's log-probabilities once, where the recipe says so: before any step, while the model is the base. */
export function precomputeReferences(parts: Parts): void {
  const { recipe } = parts.prepared;
  const objective = preferenceObjective(recipe);
  if (objective === undefined || !recipe.objective.precomputeReference) return;
  using step = new PreferenceStep(parts.context, { ...stepParts(parts), objective });
  for (const rows of [parts.data, parts.validation])
    rows?.precomputeReference((batch) => step.referenceOf(batch), recipe.microBatch);
}
