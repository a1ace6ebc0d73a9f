/** `npm start`: from nothing to a model that writes, in about two minutes on two cores. */
import { rmSync } from "node:fs";
import { formatCount, formatDuration, note, countOf } from "../../base/index.ts";
import { openDevice } from "../../device/index.ts";
import type { Device } from "../../device/index.ts";
import { generateText, parseSampling } from "../../infer/index.ts";
import { countParameters } from "../../models/index.ts";
import { parseRecipe } from "../../train/index.ts";
import { openEngine } from "../api/openEngine.ts";
import { demoRecipe } from "../recipes/demo.ts";
import { recipeModel, runRecipe, trialSpeed } from "./train.ts";

/** The verb's options. */
export interface DemoCliOptions {
  seconds: number;
  run: string;
  device: "auto" | "cpu" | "cuda" | "reference";
  threads?: number;
}

const prompts = ["/**\n * ", "export function ", "## How "];
const tokensPerSample = 120;

export async function demoCommand(options: DemoCliOptions): Promise<void> {
  const startMs = performance.now();
  note("Nautilus: a Nemotron model learns this repository's source and docs, then writes.\n");
  using device = await openDevice({ kind: options.device, threads: options.threads });
  note(`device     ${device.description}`);

  const { precision, tokensPerSecond } = fastestPrecision(device, options.run);
  const totalTokens = tokensPerSecond * options.seconds;
  const recipe = parseRecipe(demoRecipe({ run: options.run, totalTokens, precision }));
  // A demonstration begins anew each time: the sources may have changed.
  rmSync(options.run, { recursive: true, force: true });
  const outcome = await runRecipe(recipe, device, {
    isJson: false,
    mayResume: true,
    onPrepared: (_, config) => {
      note(
        `model      ${formatCount(countParameters(config))} parameters: ${countOf(config.numLayers, "layer")} of width ${config.width}, ${config.vocabSize} pieces`,
      );
      note(
        `training   ${formatCount(recipe.totalTokens)} tokens, about ${formatDuration(options.seconds)}\n`,
      );
    },
  });
  if (outcome === "stopped") {
    process.exitCode = 130;
    return;
  }
  await write(device, options.run);
  note(`\nDone in ${formatDuration((performance.now() - startMs) / 1000)}. The model is in ${options.run}. Next:

  npx nautilus generate --model ${options.run} --prompt "import {" --max-tokens 200 --temperature 0.8 --top-k 50
  npx nautilus train examples/recipes/small.ts --set optim.lr=1e-3
  npx nautilus model info nemotron-3-8b
  npx nautilus doctor`);
}

/** f32, or bf16 where the machine is faster at it. */
function fastestPrecision(
  device: Device,
  run: string,
): { precision: "f32" | "bf16"; tokensPerSecond: number } {
  const trials = (["f32", "bf16"] as const).map((precision) => {
    const sizing = parseRecipe(demoRecipe({ run, totalTokens: 1_000_000, precision }));
    return {
      precision,
      tokensPerSecond: trialSpeed(sizing, recipeModel(sizing, sizing.tokenizer.vocabSize), device),
    };
  });
  return trials.reduce((best, trial) => (trial.tokensPerSecond > best.tokensPerSecond ? trial : best));
}

/** Lets the trained model continue a few prompts, shown as it writes. */
async function write(device: Device, run: string): Promise<void> {
  await using open = await openEngine({ model: run, on: device });
  for (const [index, prompt] of prompts.entries()) {
    const sampling = parseSampling({
      maxTokens: tokensPerSample,
      temperature: 0.7,
      topK: 40,
      seed: index + 1,
    });
    process.stdout.write(`\n--- it writes, from ${JSON.stringify(prompt)} ---\n${prompt}`);
    for await (const { event } of generateText(open.engine, open.tokenizer, [{ prompt, sampling }]))
      if (event.type !== "prompt") process.stdout.write(event.text);
    process.stdout.write("\n");
  }
}
