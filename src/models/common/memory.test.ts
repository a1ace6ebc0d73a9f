import { expect, it } from "vitest";
import {
  adaptedProjections,
  adapterMemory,
  adapterSpecs,
  modelFamily,
  nemotronPreset,
  parseAdapterConfig,
} from "../index.ts";
import { numElements } from "../../base/index.ts";

const model = nemotronPreset("nemotron-3-8b");
const numRows = 16_384;
const gibibyte = 2 ** 30;

/** Of a step of LoRA in bf16 with nothing recomputed, as bench/tune.ts makes it. */
function stepBytes(targets: string | string[], layers?: number[]): number {
  const adapter = {
    family: modelFamily(model),
    config: parseAdapterConfig({ method: "lora", rank: 16, targets, layers }),
  };
  const sizes = adapterSpecs(model, adapter).map(({ shape }) => numElements(shape));
  return adapterMemory(model, {
    dtype: "bf16",
    gradientDtype: "bf16",
    moments: "f32",
    master: true,
    recompute: "none",
    numRows,
    chunkBytes: gibibyte,
    numTrained: sizes.reduce((total, size) => total + size, 0),
    adapted: adaptedProjections(model, adapter),
  }).total;
}

it.for([
  ["attention", 61.5],
  ["all-linear", 81.9],
] as const)("estimates the memory of LoRA on %s within 3 %% of what was measured", ([targets, measured]) => {
  const estimated = stepBytes(targets) / gibibyte;
  expect(Math.abs(estimated / measured - 1)).toBeLessThan(0.03);
});

it("counts the inputs of adapted projections, and of no other", () => {
  const bytesPerRow = (targets: string[], layers?: number[]): number => stepBytes(targets, layers) / numRows;
  const { width, ffnWidth, numLayers } = model;
  const ranks = 16;
  // Weights, gradients and states of 16 ranks.
  const trained = (inputs: number, outputs: number): number => (16 * ranks * (inputs + outputs)) / numRows;
  const output = bytesPerRow(["o_proj"]);
  const added = (targets: string[]): number => bytesPerRow(["o_proj", ...targets]) - output;
  expect(added(["down_proj"])).toBeCloseTo(
    numLayers * (2 * (ffnWidth + ranks) + trained(ffnWidth, width)),
    3,
  );
  expect(added(["up_proj"])).toBeCloseTo(numLayers * (2 * (width + ranks) + trained(width, ffnWidth)), 3);
  // One input for the three that read it.
  expect(added(["q_proj", "k_proj", "v_proj"])).toBeCloseTo(
    numLayers * (2 * (width + 3 * ranks) + 3 * trained(width, width)),
    3,
  );
  expect(bytesPerRow(["down_proj"], [0, 1]) - bytesPerRow(["down_proj"], [0])).toBeCloseTo(
    2 * (ffnWidth + ranks) + trained(ffnWidth, width),
    3,
  );
});
