/** `nautilus tune`: from a recipe to an adapter (or a tuned model), with validation, early stopping and resuming. */
import { existsSync } from "node:fs";
import { basename, join } from "node:path";
import { ConfigError, formatCount, note, warn, writeText, countOf } from "../../../base/index.ts";
import { showText, textsOf } from "../../../data/index.ts";
import { openDevice } from "../../../device/index.ts";
import type { Device } from "../../../device/index.ts";
import { createAdapter, Decoder, loadWeights, modelFamily } from "../../../models/index.ts";
import { Context } from "../../../tensor/index.ts";
import {
  AdamW,
  evaluateLoss,
  initialRunState,
  listCheckpoints,
  loadCheckpoint,
  MetricsWriter,
  parseTuneRecipe,
  PreferenceStep,
  saveCheckpoint,
  TrainingRun,
  tuningRate,
} from "../../../train/index.ts";
import type { EvaluationResult, RunOutcome, RunState, StepRunner } from "../../../train/index.ts";
import { loadRecipeValue } from "../../recipes/load.ts";
import { stopSignal } from "../../terminal/signals.ts";
import { TrainingProgress } from "../../terminal/trainingProgress.ts";
import { modelCard } from "./card.ts";
import { BestAdapters } from "./best.ts";
import { findRate } from "./findRate.ts";
import { describeEstimate, estimateTuning, expectTuningFits } from "./memory.ts";
import type { TuneEstimate } from "./memory.ts";
import { checkpointOf, chunkBytesOf, precomputeReferences, tuneStep, tuningRows } from "./parts.ts";
import type { Parts } from "./parts.ts";
import { noteStatistics, prepareTuning } from "./prepare.ts";
import type { PreparedTuning } from "./prepare.ts";
import { removeOutputFolder } from "../replaceFolder.ts";
import { expectFreshRun } from "./runFolder.ts";

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
  findLr?: number | true;
  force?: boolean;
  json?: boolean;
}

const shownExamples = 3;
const usualSweepSteps = 100;

interface TuneMode {
  isJson: boolean;
  isDry: boolean;
  isForced: boolean;
  /** Steps of a sweep over learning rates instead of training. */
  sweepSteps: number | undefined;
}

export async function tuneCommand(path: string | undefined, options: TuneCliOptions): Promise<void> {
  const quoted = (field: string, value: string | undefined): string[] =>
    value === undefined ? [] : [`${field}=${JSON.stringify(value)}`];
  const ofOptions = [
    ...quoted("method", options.method),
    ...quoted("objective", options.objective),
    ...quoted("model", options.model),
    ...(options.data === undefined ? [] : [`data.train=${JSON.stringify(options.data)}`]),
    ...quoted("quantise", options.quantise),
    ...quoted("run", options.run),
    ...quoted("device", options.device),
    ...(options.threads === undefined ? [] : [`threads=${options.threads}`]),
  ];
  if (path === undefined && (options.model === undefined || options.data === undefined)) {
    throw new ConfigError("tune", "expected a recipe, or --model and --data, got neither whole", {
      hint: "nautilus tune --model runs/demo --method lora --data chats.jsonl",
    });
  }
  const changes = options.set ?? [];
  warnOfReplaced(ofOptions, changes);
  const usualRun = quoted("run", path === undefined ? "runs/tune" : undefined);
  const recipe = parseTuneRecipe(await loadRecipeValue(path, [...usualRun, ...ofOptions, ...changes]));
  using prepared = await prepareTuning(recipe);
  noteStatistics(prepared);
  if (options.showData !== undefined) {
    showData(prepared, options.showData === true ? shownExamples : options.showData);
    return;
  }
  using device = await openDevice({ kind: recipe.device, threads: recipe.threads });
  const outcome = await runTuning(prepared, device, {
    isJson: options.json === true,
    isDry: options.dryRun === true,
    isForced: options.force === true,
    sweepSteps: options.findLr === true ? usualSweepSteps : options.findLr,
  });
  if (outcome === "stopped") process.exitCode = 130;
}

/** Changes by --set come last: says which of the options' fields they take the place of. */
function warnOfReplaced(ofOptions: readonly string[], changes: readonly string[]): void {
  for (const change of changes) {
    const [changed] = change.split("=");
    const replaced = ofOptions.find((option) => `${option.split("=")[0]}.`.startsWith(`${changed}.`));
    if (replaced !== undefined) warn(`--set ${change} replaces ${replaced}, which an option gives`);
  }
}

function showData({ train, tokenizer }: PreparedTuning, numShown: number): void {
  const hasColours = process.stdout.isTTY;
  for (const example of train.slice(0, numShown)) {
    process.stdout.write(`--- ${example.file}:${example.line}\n`);
    for (const text of textsOf(example)) process.stdout.write(`${showText(text, tokenizer, hasColours)}\n`);
  }
}

async function runTuning(
  prepared: PreparedTuning,
  device: Device,
  { isJson, isDry, isForced, sweepSteps }: TuneMode,
): Promise<RunOutcome> {
  const { recipe, checkpoint, config } = prepared;
  const dtype = tuningDtype(prepared);
  const { quantise, method } = recipe;
  const rows = tuningRows(prepared);
  const numSteps =
    recipe.steps ?? Math.max(1, Math.ceil((recipe.epochs * rows.data.rowsPerEpoch) / recipe.batchSize));
  const estimate = estimateTuning(prepared, { dtype, chunkBytes: chunkBytesOf(recipe, device) }, device);
  describeRun(prepared, { estimate, dtype, device, numSteps, rowsPerEpoch: rows.data.rowsPerEpoch });
  if (isDry) {
    if (isJson)
      process.stdout.write(
        `${JSON.stringify({ device: device.description, numSteps, ...estimate }, undefined, 2)}\n`,
      );
    return "finished";
  }
  expectTuningFits(estimate);
  const isTraining = sweepSteps === undefined;
  if (isTraining && isForced) removeOutputFolder("tune", recipe.run);
  if (isTraining) expectFreshRun(recipe);
  const context = new Context(device);
  const gradientDtype = method === undefined ? dtype : undefined;
  using decoder = new Decoder(context, config, { dtype, quantise, gradientDtype });
  const family = modelFamily(config);
  using adapter = method && createAdapter(decoder, { family, config: method, dtype, gradientDtype: dtype });
  loadWeights(context, decoder, checkpoint.weights);
  adapter?.initialise(context, recipe.seed);
  decoder.attach(adapter);
  using optimizer = new AdamW(context, adapter?.parameters ?? decoder.parameters, recipe.optim);
  const parts = { prepared, context, decoder, adapter, optimizer, ...rows };
  let outcome: RunOutcome = "finished";
  if (isTraining) outcome = await trainTuning(parts, { numSteps, isJson });
  else findRate(parts, { numSteps: sweepSteps, isJson });
  decoder.attach(undefined);
  return outcome;
}

/** The recipe's dtype, or the base's. Throws ConfigError where a quantised base would be trained. */
function tuningDtype({ recipe, checkpoint }: PreparedTuning): "f32" | "bf16" {
  if (recipe.method === undefined && recipe.quantise !== undefined) {
    throw new ConfigError("tune", "quantise: expected a method that leaves the base as it is, got full", {
      hint: "set method to lora",
    });
  }
  const [firstTensor] = checkpoint.weights.names();
  return recipe.precision ?? (checkpoint.weights.info(firstTensor).dtype === "f32" ? "f32" : "bf16");
}

function describeRun(
  { recipe }: PreparedTuning,
  {
    estimate,
    dtype,
    device,
    numSteps,
    rowsPerEpoch,
  }: { estimate: TuneEstimate; dtype: string; device: Device; numSteps: number; rowsPerEpoch: number },
): void {
  const { parameters, trained } = estimate;
  note(
    `base       ${recipe.model}: ${formatCount(parameters)} parameters in ${recipe.quantise ?? dtype} on ${device.description}`,
  );
  note(
    `method     ${recipe.method?.method ?? "full"}, ${recipe.objective.kind}: ${trained.toLocaleString("en-US")} trained (${((100 * trained) / parameters).toFixed(3)} %)`,
  );
  note(`steps      ${numSteps} of ${countOf(recipe.batchSize, "row")}; rows in an epoch: ${rowsPerEpoch}`);
  note(describeEstimate(estimate));
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
  const { prepared, context, decoder, optimizer, data } = parts;
  const { recipe, maxLength } = prepared;
  const state = resumeTuning(parts);
  using metrics = new MetricsWriter(recipe.run, { resumeStep: state.step, tensorboard: recipe.tensorboard });
  using stop = stopSignal("stopping after this step and saving; press Ctrl-C again to stop at once");
  const progress = new TrainingProgress({ isJson });
  const best = new BestAdapters(parts);
  const makeStep = (): StepRunner => tuneStep(parts);
  precomputeReferences(parts);
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
        lossChunkBytes: chunkBytesOf(recipe, context.device),
        seed: recipe.seed,
        spikeFactor: 0,
        maxSkippedSteps: 10,
        evaluateEverySteps: recipe.evaluation.everySteps,
        checkpointEverySteps: recipe.checkpoint.everySteps,
      },
      events: {
        stepEnd: (step) => {
          metrics.writeStep(step);
          progress.step(step);
        },
        evaluate: ({ step, tokensSeen: tokens }) => {
          const result = validate(parts, makeStep);
          if (result === undefined) return false;
          const { loss } = result;
          metrics.write({ kind: "validation", name: "validation", step, tokens, loss });
          progress.evaluation(result, { name: "validation", step, bitsPerByte: undefined });
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

/** What counts as a target is the objective's: a token, or a pair or text that is judged as a whole. */
function validate(
  { context, decoder, validation, prepared }: Parts,
  makeStep: () => StepRunner,
): EvaluationResult | undefined {
  if (validation === undefined) return undefined;
  using step = makeStep();
  // KTO compares texts of one micro-batch: there are always at least two.
  const batches = validation.all(Math.max(2, prepared.recipe.microBatch));
  if (!(step instanceof PreferenceStep)) return evaluateLoss(context, decoder, batches);
  const { loss, numItems } = step.measure(batches);
  return { loss, numTargets: numItems };
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
