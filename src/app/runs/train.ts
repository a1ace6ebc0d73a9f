/** Runs a recipe from text to trained model: preparation, estimate, resume, the loop, and what is shown of it. */
import { basename, join } from "node:path";
import { CheckpointError, ConfigError, formatCount, messageOf, note, warn } from "../../base/index.ts";
import { parseSplit } from "../../data/index.ts";
import { openDevice } from "../../device/index.ts";
import type { Device } from "../../device/index.ts";
import { checkModelConfig, Decoder, modelPreset } from "../../models/index.ts";
import type { DecoderConfig } from "../../models/index.ts";
import { Context } from "../../tensor/index.ts";
import type { Tokenizer } from "../../text/index.ts";
import {
  AdamW,
  bitsPerByte,
  checkBatchSchedule,
  evaluateLoss,
  initialRunState,
  listCheckpoints,
  loadCheckpoint,
  MetricsWriter,
  saveCheckpoint,
  TrainingRun,
  TrainingStep,
} from "../../train/index.ts";
import type { Recipe, RunOutcome, RunState } from "../../train/index.ts";
import { loadRecipe } from "../recipes/load.ts";
import { estimateRun, expectFits, lossChunkBytes, printEstimate } from "./memoryCheck.ts";
import { prepareRun } from "./prepare.ts";
import type { PreparedRun } from "./prepare.ts";
import { TrainingProgress } from "../terminal/trainingProgress.ts";
import { stopSignal } from "../terminal/signals.ts";

/** The verb's options. */
export interface TrainCliOptions {
  set?: string[];
  device?: string;
  threads?: number;
  dryRun?: boolean;
  resume: boolean;
  json?: boolean;
}

const vocabularyMultiple = 64;

export async function trainCommand(path: string, options: TrainCliOptions): Promise<void> {
  const assignments = [
    ...(options.set ?? []),
    ...(options.device === undefined ? [] : [`device=${options.device}`]),
    ...(options.threads === undefined ? [] : [`threads=${options.threads}`]),
  ];
  const recipe = await loadRecipe(path, assignments);
  checkBatchSchedule({ batchTokens: recipe.batchTokens, ramp: recipe.batchRamp }, recipe.sequenceLength);
  using device = await openDevice({ kind: recipe.device, threads: recipe.threads });
  const isJson = options.json === true;
  if (options.dryRun === true) {
    await dryRun(recipe, device, isJson);
    return;
  }
  const outcome = await runRecipe(recipe, device, { isJson, mayResume: options.resume });
  if (outcome === "stopped") process.exitCode = 130;
}

/** The model of a recipe for a vocabulary, rounded up so that matrix products like its width. Throws ConfigError. */
export function recipeModel(recipe: Recipe, vocabSize: number): DecoderConfig {
  const { preset, vocabSize: wanted, ...overrides } = recipe.model;
  const rounded = Math.ceil(vocabSize / vocabularyMultiple) * vocabularyMultiple;
  if (wanted !== undefined && wanted < vocabSize) {
    throw new ConfigError(
      "recipe",
      `model.vocabSize: expected at least the tokenizer's ${vocabSize}, got ${wanted}`,
    );
  }
  const base = modelPreset(preset);
  const given = Object.fromEntries(Object.entries(overrides).filter(([, value]) => value !== undefined));
  const config = {
    ...base,
    ...given,
    vocabSize: wanted ?? rounded,
    maxPositions: Math.max(base.maxPositions, recipe.sequenceLength),
  };
  const rotary = base.rotary && { ...base.rotary, rotaryDim: rotaryWidth(base, config.headDim) };
  return checkModelConfig({ ...config, rotary });
}

/** As large a share of another head as of the preset's, in whole pairs. */
function rotaryWidth({ rotary, headDim: presetHeadDim }: DecoderConfig, headDim: number): number {
  return 2 * Math.floor(((rotary?.rotaryDim ?? 0) * headDim) / presetHeadDim / 2);
}

async function dryRun(recipe: Recipe, device: Device, isJson: boolean): Promise<void> {
  warnOfWarmup(recipe);
  const config = recipeModel(recipe, recipe.model.vocabSize ?? recipe.tokenizer.vocabSize);
  const estimate = estimateRun(recipe, config, device);
  const tokensPerSecond = estimate.fits ? trialSpeed(recipe, config, device) : undefined;
  printEstimate(estimate, device, { isJson, tokensPerSecond, totalTokens: recipe.totalTokens });
  await Promise.resolve();
  expectFits(estimate);
}

/** Tokens per second of one micro-batch of random tokens, forward and backward with the update. */
export function trialSpeed(recipe: Recipe, config: DecoderConfig, device: Device): number {
  const context = new Context(device);
  using decoder = new Decoder(context, config, {
    dtype: recipe.precision,
    gradientDtype: recipe.gradients ?? recipe.precision,
  });
  decoder.parameters.initialise(recipe.seed);
  using optimizer = new AdamW(context, decoder.parameters, recipe.optim);
  const data = {
    batch: (first: number, numSequences: number) => {
      const length = numSequences * recipe.sequenceLength;
      const tokens = Int32Array.from({ length }, (_, row) => (first + row * 7919) % config.vocabSize);
      return { tokens, targets: tokens, numSequences, sequenceLength: recipe.sequenceLength };
    },
  };
  using step = new TrainingStep(context, {
    decoder,
    optimizer,
    recompute: recipe.recompute,
    chunkBytes: lossChunkBytes(recipe, device),
  });
  const numTokens = recipe.microBatchSequences * recipe.sequenceLength;
  let seconds = Infinity;
  for (let trial = 1; trial <= 2; trial++) {
    const startMs = performance.now();
    step
      .run([data.batch(trial, recipe.microBatchSequences)], {
        step: trial,
        learningRate: 0,
        seed: 0,
        skipAboveNorm: 0,
      })
      .wait();
    seconds = Math.min(seconds, (performance.now() - startMs) / 1000);
  }
  return numTokens / seconds;
}

export interface RunRecipeOptions {
  isJson: boolean;
  mayResume: boolean;
  /** Called before training with what was prepared. */
  onPrepared?: (run: PreparedRun, config: DecoderConfig) => void;
}

/** Trains by a recipe, from its newest checkpoint where there is one. */
export async function runRecipe(
  recipe: Recipe,
  device: Device,
  options: RunRecipeOptions,
): Promise<RunOutcome> {
  if (!options.mayResume && listCheckpoints(recipe.run).length > 0) {
    throw new ConfigError("train", `expected a new run folder, got ${recipe.run} with checkpoints`, {
      hint: "choose another 'run', or leave --no-resume out",
    });
  }
  checkBeforehand(recipe);
  using prepared = await prepareRun(recipe, { isQuiet: options.isJson });
  const config = recipeModel(recipe, prepared.tokenizer.vocabSize);
  expectFits(estimateRun(recipe, config, device));
  options.onPrepared?.(prepared, config);
  const context = new Context(device);
  using decoder = new Decoder(context, withTokenizerIds(config, prepared.tokenizer), {
    dtype: recipe.precision,
    gradientDtype: recipe.gradients ?? recipe.precision,
  });
  using optimizer = new AdamW(context, decoder.parameters, recipe.optim);
  const state = start(context, { recipe, decoder, optimizer });
  return await train(context, {
    recipe,
    device,
    prepared,
    decoder,
    optimizer,
    state,
    isJson: options.isJson,
  });
}

/** Finds what cannot be before hours of tokenizing. The vocabulary is not known yet: a tokenizer may end smaller than asked for. */
function checkBeforehand(recipe: Recipe): void {
  const { vocabSize } = recipe.tokenizer;
  recipeModel(recipe, Math.min(recipe.model.vocabSize ?? vocabSize, vocabSize));
  parseSplit(recipe.data.split);
  warnOfWarmup(recipe);
}

/** The card's warm-up is for trillions of tokens: a short run that leaves it out would hardly learn, and not say why. */
function warnOfWarmup({ optim, totalTokens }: Recipe): void {
  const { warmupTokens, lr } = optim;
  if (warmupTokens < totalTokens) return;
  const share = (100 * totalTokens) / warmupTokens;
  warn(
    `the warm-up of ${formatCount(warmupTokens)} tokens is no shorter than the run of ${formatCount(totalTokens)}: the learning rate ends at ${share.toPrecision(2)} % of ${lr} (set optim.warmupTokens)`,
  );
}

function withTokenizerIds(config: DecoderConfig, { bosId, eosId, padId }: Tokenizer): DecoderConfig {
  return { ...config, bosId, eosId, padId };
}

/** Fills the model from the newest whole checkpoint, or from the seed. */
function start(
  context: Context,
  { recipe, decoder, optimizer }: { recipe: Recipe; decoder: Decoder; optimizer: AdamW },
): RunState {
  const found = listCheckpoints(recipe.run).toReversed();
  for (const [index, { path }] of found.entries()) {
    try {
      const state = loadCheckpoint(context, path, { decoder, optimizer });
      note(`going on from ${path}`);
      return state;
    } catch (error) {
      // A damaged checkpoint is no reason to lose the run, nor to begin it anew.
      if (
        !(error instanceof CheckpointError) ||
        error.fields["reason"] !== "checksum" ||
        index === found.length - 1
      )
        throw error;
      warn(`${messageOf(error)}; trying the checkpoint before it`);
    }
  }
  decoder.parameters.initialise(recipe.seed);
  optimizer.resetMasters(context);
  return { ...initialRunState, recentNorms: [] };
}

interface TrainParts {
  recipe: Recipe;
  device: Device;
  prepared: PreparedRun;
  decoder: Decoder;
  optimizer: AdamW;
  state: RunState;
  isJson: boolean;
}

async function train(context: Context, parts: TrainParts): Promise<RunOutcome> {
  const { recipe, device, prepared, decoder, optimizer, state, isJson } = parts;
  using metrics = new MetricsWriter(recipe.run, { resumeStep: state.step, tensorboard: recipe.tensorboard });
  using stop = stopSignal("stopping after this step and saving; press Ctrl-C again to stop at once");
  const progress = new TrainingProgress({ isJson });
  const run = new TrainingRun(
    context,
    { decoder, optimizer, data: prepared.data },
    {
      state,
      options: {
        schedule: recipe.optim,
        batches: { batchTokens: recipe.batchTokens, ramp: recipe.batchRamp },
        totalTokens: recipe.totalTokens,
        sequenceLength: recipe.sequenceLength,
        microBatchSequences: recipe.microBatchSequences,
        recompute: recipe.recompute,
        lossChunkBytes: lossChunkBytes(recipe, device),
        seed: recipe.seed,
        spikeFactor: recipe.optim.spikeFactor,
        maxSkippedSteps: recipe.optim.maxSkippedSteps,
        evaluateEverySteps: recipe.evaluation.everySteps,
        checkpointEverySteps: recipe.checkpoint.everySteps,
      },
      events: {
        stepEnd: (step) => {
          metrics.writeStep(step);
          progress.step(step);
        },
        evaluate: ({ step, tokensSeen }) => {
          for (const set of prepared.validation) {
            const batches = set.batches(recipe.evaluation.maxTokens, recipe.microBatchSequences);
            const result = evaluateLoss(context, decoder, batches);
            const bits = set.bytesPerToken && bitsPerByte(result.loss, set.bytesPerToken);
            metrics.write({
              kind: "validation",
              name: set.name,
              step,
              tokens: tokensSeen,
              loss: result.loss,
              bitsPerByte: bits,
            });
            progress.evaluation(result, { name: set.name, step, bitsPerByte: bits });
          }
        },
        checkpoint: (current) => {
          const extraFiles = { "tokenizer.json": prepared.tokenizerPath };
          const path = saveCheckpoint(
            recipe.run,
            { decoder, optimizer },
            { state: current, recipe, keep: recipe.checkpoint.keep, extraFiles },
          );
          progress.checkpoint(join(recipe.run, "checkpoints", basename(path)));
        },
      },
    },
  );
  try {
    return await run.run(stop.signal);
  } finally {
    progress.finish();
  }
}
