/**
 * The loss curve against PyTorch's: trains a recipe for a number of steps and leaves, for `curve_peer.py`, the very initial weights and
 * batches, so that two frameworks run the same steps.
 *
 * usage: node bench/curve.ts RECIPE OUT [--steps 200] [--set path=value]...
 * writes OUT/model (initial weights), OUT/batches.i32 (steps, sequences, length + 1) and OUT/nautilus.json
 */
import { closeSync, mkdirSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { loadRecipe } from "../src/app/recipes/load.ts";
import { prepareRun } from "../src/app/runs/prepare.ts";
import { recipeModel } from "../src/app/runs/train.ts";
import { ConfigError, writeText } from "../src/base/index.ts";
import { openDevice } from "../src/device/index.ts";
import { Decoder, saveModelFolder } from "../src/models/index.ts";
import { Context } from "../src/tensor/index.ts";
import { AdamW, TrainingRun } from "../src/train/index.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    steps: { type: "string", default: "200" },
    set: { type: "string", multiple: true, default: [] },
  },
});
const [recipePath, out] = positionals;
if (out === undefined) throw new ConfigError("curve", "expected a recipe and a folder, got neither");
const recipe = await loadRecipe(recipePath, values.set);
const numSteps = Number(values.steps);
const { sequenceLength, batchTokens } = recipe;
const numSequences = batchTokens / sequenceLength;
mkdirSync(out, { recursive: true });

using device = await openDevice({ kind: recipe.device, threads: recipe.threads });
using prepared = await prepareRun(recipe, { isQuiet: false });
const context = new Context(device);
const config = recipeModel(recipe, prepared.tokenizer.vocabSize);
using decoder = new Decoder(context, config, {
  dtype: recipe.precision,
  gradientDtype: recipe.gradients ?? recipe.precision,
});
decoder.parameters.initialise(recipe.seed);
saveModelFolder(decoder, join(out, "model"));
using optimizer = new AdamW(context, decoder.parameters, recipe.optim);
optimizer.resetMasters(context);

const descriptor = openSync(join(out, "batches.i32"), "w");
const data = {
  batch(firstSample: number, count: number) {
    const batch = prepared.data.batch(firstSample, count);
    const rows = new Int32Array(count * (sequenceLength + 1));
    for (let row = 0; row < count; row++) {
      rows.set(
        batch.tokens.subarray(row * sequenceLength, (row + 1) * sequenceLength),
        row * (sequenceLength + 1),
      );
      rows[(row + 1) * (sequenceLength + 1) - 1] = batch.targets[(row + 1) * sequenceLength - 1];
    }
    writeSync(descriptor, rows);
    return batch;
  },
};
const steps: { loss: number; gradientNorm: number; learningRate: number; tokensPerSecond: number }[] = [];
const run = new TrainingRun(
  context,
  { decoder, optimizer, data },
  {
    options: {
      schedule: recipe.optim,
      batches: { batchTokens, ramp: [] },
      totalTokens: numSteps * batchTokens,
      sequenceLength,
      microBatchSequences: recipe.microBatchSequences,
      recompute: recipe.recompute,
      seed: recipe.seed,
      spikeFactor: 0,
      maxSkippedSteps: 10,
      evaluateEverySteps: 0,
      checkpointEverySteps: 0,
    },
    events: {
      stepEnd: ({ loss, gradientNorm, learningRate, tokensPerSecond }) => {
        steps.push({ loss, gradientNorm, learningRate, tokensPerSecond });
      },
    },
  },
);
await run.run();
closeSync(descriptor);
const { betas, eps, weightDecay, clip } = recipe.optim;
writeText(
  "curve",
  join(out, "nautilus.json"),
  `${JSON.stringify({ numSequences, sequenceLength, betas, eps, weightDecay, clip, steps })}\n`,
);
const last = steps.at(-1);
process.stdout.write(
  `${steps.length} steps on ${device.description}: loss ${steps[0]?.loss.toFixed(4)} to ${last?.loss.toFixed(4)}\n`,
);
