/** `nautilus tune`: from a recipe to an adapter (or a tuned model), with validation, early stopping and resuming. */
import { existsSync, readdirSync, rmSync } from "node:fs";
import { basename, join } from "node:path";
import { ConfigError, formatCount, note, writeText } from "../../../base/index.ts";
import { showText, textsOf } from "../../../data/index.ts";
import { openDevice } from "../../../device/index.ts";
import type { Device } from "../../../device/index.ts";
import {
  countParameters,
  createAdapter,
  Decoder,
  loadWeights,
  modelFamily,
  saveAdapter,
} from "../../../models/index.ts";
import type { Adapter } from "../../../models/index.ts";
import { Context } from "../../../tensor/index.ts";
import {
  AdamW,
  evaluateLoss,
  initialRunState,
  listCheckpoints,
  loadCheckpoint,
  MetricsWriter,
  parseTuneRecipe,
  preferenceObjective,
  PreferenceStep,
  readMetrics,
  saveCheckpoint,
  TrainingRun,
  TrainingStep,
  TuningRows,
  tuningRate,
} from "../../../train/index.ts";
import type { RunOutcome, RunState, StepRunner } from "../../../train/index.ts";
import { loadRecipeValue } from "../../recipes/load.ts";
import { stopSignal } from "../../terminal/signals.ts";
import { TrainingProgress } from "../../terminal/trainingProgress.ts";
import { modelCard } from "./card.ts";
import { noteStatistics, prepareTuning } from "./prepare.ts";
import type { PreparedTuning } from "./prepare.ts";
import { expectFreshRun, removeRun } from "./runFolder.ts";

/** The verb's options. */
export interface TuneCliOptions {
  set?: string[];
  method?: string;
  objective?: string;
  model?: string;
  data?: string[];
  quantise?: string;
  run?: string;
  device?: string;
  threads?: number;
  dryRun?: boolean;
  showData?: number | true;
  force?: boolean;
  json?: boolean;
}

const shownExamples = 3;

export async function tuneCommand(path: string | undefined, options: TuneCliOptions): Promise<void> {
  const quoted = (field: string, value: string | undefined): string[] =>
    value === undefined ? [] : [`${field}=${JSON.stringify(value)}`];
  const assignments = [
    ...quoted("method", options.method),
    ...quoted("objective", options.objective),
    ...quoted("model", options.model),
    ...(options.data === undefined ? [] : [`data.train=${JSON.stringify(options.data)}`]),
    ...quoted("quantise", options.quantise),
    ...quoted("run", options.run ?? (path === undefined ? "runs/tune" : undefined)),
    ...quoted("device", options.device),
    ...(options.threads === undefined ? [] : [`threads=${options.threads}`]),
    ...(options.set ?? []),
  ];
  if (path === undefined && (options.model === undefined || options.data === undefined)) {
    throw new ConfigError("tune", "expected a recipe, or --model and --data, got neither whole", {
      hint: "nautilus tune --model runs/demo --method lora --data chats.jsonl",
    });
  }
  const recipe = parseTuneRecipe(await loadRecipeValue(path, assignments));
  using prepared = await prepareTuning(recipe);
  noteStatistics(prepared);
  if (options.showData !== undefined) {
    showData(prepared, options.showData === true ? shownExamples : options.showData);
    return;
  }
  if (options.force === true && options.dryRun !== true) removeRun(recipe.run);
  using device = await openDevice({ kind: recipe.device, threads: recipe.threads });
  const outcome = await runTuning(prepared, device, {
    isJson: options.json === true,
    isDry: options.dryRun === true,
  });
  if (outcome === "stopped") process.exitCode = 130;
}

function showData({ train, tokenizer }: PreparedTuning, numShown: number): void {
  const hasColours = process.stdout.isTTY;
  for (const example of train.slice(0, numShown)) {
    process.stdout.write(`--- ${example.file}:${example.line}\n`);
    for (const text of textsOf(example)) process.stdout.write(`${showText(text, tokenizer, hasColours)}\n`);
  }
}

interface Parts {
  prepared: PreparedTuning;
  context: Context;
  decoder: Decoder;
  adapter: Adapter | undefined;
  optimizer: AdamW;
  data: TuningRows;
  validation: TuningRows | undefined;
}

async function runTuning(
  prepared: PreparedTuning,
  device: Device,
  { isJson, isDry }: { isJson: boolean; isDry: boolean },
): Promise<RunOutcome> {
  const { recipe, checkpoint, config } = prepared;
  const context = new Context(device);
  const [firstTensor] = checkpoint.weights.names();
  const dtype = recipe.precision ?? (checkpoint.weights.info(firstTensor).dtype === "f32" ? "f32" : "bf16");
  const isFull = recipe.method === undefined;
  const { quantise } = recipe;
  if (isFull && quantise !== undefined) {
    throw new ConfigError("tune", "quantise: expected a method that leaves the base as it is, got full", {
      hint: "set method to lora",
    });
  }
  using decoder = new Decoder(context, config, {
    dtype,
    quantise,
    gradientDtype: isFull ? dtype : undefined,
  });
  const family = modelFamily(config);
  using adapter =
    recipe.method && createAdapter(decoder, { family, config: recipe.method, dtype, gradientDtype: dtype });
  const numTrained =
    adapter?.numParameters ?? [...decoder.parameters].reduce((sum, { numElements }) => sum + numElements, 0);
  const numAll = countParameters(config);
  note(
    `base       ${recipe.model}: ${formatCount(numAll)} parameters in ${quantise ?? dtype} on ${device.description}`,
  );
  note(
    `method     ${recipe.method?.method ?? "full"}, ${recipe.objective.kind}: ${numTrained.toLocaleString("en-US")} trained (${((100 * numTrained) / numAll).toFixed(3)} %)`,
  );
  const rows = tuningRows(prepared, config.vocabSize);
  const numSteps =
    recipe.steps ?? Math.max(1, Math.ceil((recipe.epochs * rows.data.rowsPerEpoch) / recipe.batchSize));
  note(`steps      ${numSteps} of ${recipe.batchSize} rows; rows in an epoch: ${rows.data.rowsPerEpoch}`);
  if (isDry) return "finished";
  expectFreshRun(recipe);
  loadWeights(context, decoder, checkpoint.weights);
  adapter?.initialise(context, recipe.seed);
  decoder.attach(adapter);
  using optimizer = new AdamW(context, adapter?.parameters ?? decoder.parameters, recipe.optim);
  const parts = { prepared, context, decoder, adapter, optimizer, ...rows };
  const outcome = await trainTuning(parts, { numSteps, isJson });
  decoder.attach(undefined);
  return outcome;
}

function tuningRows(prepared: PreparedTuning, vocabSize: number): Pick<Parts, "data" | "validation"> {
  const { recipe, tokenizer, maxLength, numVirtualTokens, train, validation } = prepared;
  const options = {
    length: maxLength + numVirtualTokens,
    packing: recipe.data.packing,
    seed: recipe.seed,
    shuffle: recipe.data.shuffle,
    padId: tokenizer.padId ?? tokenizer.eosId,
    prefix: Array.from({ length: numVirtualTokens }, (_, i) => vocabSize + i),
  };
  return {
    data: new TuningRows(train, options),
    validation: validation.length === 0 ? undefined : new TuningRows(validation, options),
  };
}

function checkpointOf({ context, decoder, adapter, prepared }: Parts) {
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

function resumeTuning(parts: Parts): RunState {
  const { context, decoder, optimizer, prepared } = parts;
  const newest = listCheckpoints(prepared.recipe.run).at(-1)?.path;
  if (newest === undefined) {
    optimizer.resetMasters(context);
    return { ...initialRunState, recentNorms: [] };
  }
  note(`going on from ${newest}`);
  return loadCheckpoint(context, newest, { decoder, optimizer, adapter: checkpointOf(parts) });
}

async function trainTuning(
  parts: Parts,
  { numSteps, isJson }: { numSteps: number; isJson: boolean },
): Promise<RunOutcome> {
  const { prepared, context, decoder, adapter, optimizer, data } = parts;
  const { recipe, maxLength } = prepared;
  const state = resumeTuning(parts);
  using metrics = new MetricsWriter(recipe.run, { resumeStep: state.step, tensorboard: recipe.tensorboard });
  using stop = stopSignal("stopping after this step and saving; press Ctrl-C again to stop at once");
  const progress = new TrainingProgress({ isJson });
  const best = new BestAdapters(parts);
  const objective = preferenceObjective(recipe);
  const chunkBytes = recipe.lossChunkBytes ?? (context.device.kind === "cuda" ? 2 ** 30 : 2 ** 24);
  const shared = { decoder, optimizer, adapter, recompute: recipe.recompute, chunkBytes };
  const makeStep = (): StepRunner =>
    objective === undefined
      ? new TrainingStep(context, shared)
      : new PreferenceStep(context, { ...shared, objective });
  if (objective !== undefined && recipe.objective.precomputeReference) {
    using step = new PreferenceStep(context, { ...shared, objective });
    data.precomputeReference((batch) => step.referenceOf(batch), recipe.microBatch);
    parts.validation?.precomputeReference((batch) => step.referenceOf(batch), recipe.microBatch);
  }
  const stepTokens = recipe.batchSize * maxLength;
  const totalTokens = numSteps * stepTokens;
  const save = (current: RunState): void => {
    const path = saveCheckpoint(
      recipe.run,
      { decoder, optimizer, adapter: checkpointOf(parts) },
      { state: current, recipe, keep: recipe.checkpoint.keep, extraFiles: tokenizerFiles(prepared.folder) },
    );
    progress.checkpoint(join(recipe.run, "checkpoints", basename(path)));
  };
  const run = new TrainingRun(
    context,
    { decoder, optimizer, data, makeStep },
    {
      state,
      options: {
        schedule: {
          lr: tuningRate(recipe),
          minLr: recipe.optim.minLr,
          warmupTokens: recipe.optim.warmupShare * totalTokens,
          decayFraction: 1,
        },
        batches: { batchTokens: stepTokens, ramp: [] },
        totalTokens,
        sequenceLength: maxLength,
        microBatchSequences: recipe.microBatch,
        recompute: recipe.recompute,
        lossChunkBytes: chunkBytes,
        seed: recipe.seed,
        spikeFactor: 0,
        maxSkippedSteps: 10,
        evaluateEverySteps: recipe.evaluation.everySteps,
        checkpointEverySteps: recipe.checkpoint.everySteps,
      },
      events: {
        stepEnd: (step) => {
          const {
            step: number,
            tokens,
            loss,
            learningRate,
            gradientNorm,
            tokensPerSecond,
            skippedSteps,
          } = step;
          metrics.write({
            kind: "train",
            step: number,
            tokens,
            loss,
            learningRate,
            gradientNorm,
            tokensPerSecond,
            skippedSteps,
          });
          progress.step(step);
        },
        evaluate: ({ step, tokensSeen: tokens }) => {
          const loss = validationLoss(parts, makeStep);
          if (loss === undefined) return false;
          metrics.write({ kind: "validation", name: "validation", step, tokens, loss });
          progress.evaluation({ loss, numTargets: 0 }, { name: "validation", step, bitsPerByte: undefined });
          return best.take(step, loss);
        },
        checkpoint: save,
      },
    },
  );
  try {
    const outcome = await run.run(stop.signal);
    progress.finish();
    finish(parts, { state: run.state, best });
    return outcome;
  } finally {
    progress.finish();
  }
}

function validationLoss(
  { context, decoder, validation, prepared }: Parts,
  makeStep: () => StepRunner,
): number | undefined {
  if (validation === undefined) return undefined;
  using step = makeStep();
  // KTO compares texts of one micro-batch: there are always at least two.
  const batches = validation.all(Math.max(2, prepared.recipe.microBatch));
  return step instanceof PreferenceStep
    ? step.measure(batches).loss
    : evaluateLoss(context, decoder, batches).loss;
}

function tokenizerFiles(folder: string): Record<string, string> {
  const names = [
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "chat_template.jinja",
  ];
  return Object.fromEntries(
    names.filter((name) => existsSync(join(folder, name))).map((name) => [name, join(folder, name)]),
  );
}

/** The best adapters by validation loss, and when to stop. What it knows is in the run's metrics, so that a resumed run knows the same. */
class BestAdapters {
  readonly #parts: Parts;
  readonly #folder: string;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.#folder = join(parts.prepared.recipe.run, "best");
  }

  /** Evaluations so far, by step. */
  history(): { step: number; loss: number }[] {
    return readMetrics(join(this.#parts.prepared.recipe.run, "metrics.jsonl")).flatMap((line) =>
      line.kind === "validation" ? [{ step: line.step, loss: line.loss }] : [],
    );
  }

  /** Keeps the adapter where it is among the best; true when there was no gain for too long. */
  take(step: number, _loss: number): boolean {
    const { keepBest, patience } = this.#parts.prepared.recipe.evaluation;
    const history = this.history();
    const ranked = history.toSorted((a, b) => a.loss - b.loss || a.step - b.step);
    const kept = new Set(ranked.slice(0, keepBest).map((entry) => entry.step));
    if (kept.has(step)) checkpointOf(this.#parts)?.saveFiles(join(this.#folder, `step-${step}`));
    for (const name of existsSync(this.#folder) ? readdirSync(this.#folder) : []) {
      if (!kept.has(Number(name.replace("step-", "")))) rmSync(join(this.#folder, name), { recursive: true });
    }
    const bestAt = history.findIndex((entry) => entry.step === ranked[0].step);
    return patience > 0 && history.length - 1 - bestAt >= patience;
  }
}

/** Leaves the adapter with its card at the top of the run. */
function finish(parts: Parts, { state, best }: { state: Readonly<RunState>; best: BestAdapters }): void {
  const { prepared, adapter, decoder } = parts;
  const { recipe, checkpoint, data, train } = prepared;
  const folder = adapter === undefined ? recipe.run : join(recipe.run, "adapter");
  checkpointOf(parts)?.saveFiles(folder);
  const losses = best.history();
  const card = modelCard({
    recipe,
    checkpoint,
    numParameters:
      adapter?.numParameters ??
      [...decoder.parameters].reduce((sum, { numElements }) => sum + numElements, 0),
    numExamples: train.length,
    numTokens: data.statistics.numTokens,
    steps: state.step,
    validationLoss: losses.at(-1)?.loss,
  });
  writeText("tune", join(folder, "README.md"), card);
  note(adapter === undefined ? `the tuned model is in ${recipe.run}` : `the adapter is in ${folder}`);
}
