/**
 * Every method trains: its gradients against finite differences through the whole decoder, the same under every recompute policy and with
 * dropout; the base stays as it was, and parameter counts are those of the 8B model.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openDevice } from "../../src/device/index.ts";
import type { Device } from "../../src/device/index.ts";
import {
  countParameters,
  createAdapter,
  modelFamily,
  modelPreset,
  parseAdapterConfig,
  selectTargets,
  targetModules,
} from "../../src/models/index.ts";
import type { Adapter, AdapterConfigInput, Decoder } from "../../src/models/index.ts";
import { Context, Tape } from "../../src/tensor/index.ts";
import type { RecomputePolicy } from "../../src/tensor/index.ts";
import { randomData, tinyConfig, tinyDecoder } from "../tiny-model.ts";
import { uploadBatch } from "../../src/train/step.ts";

let device: Device;
let context: Context;
let decoder: Decoder;
let liveBytesBefore: number;
beforeAll(async () => {
  device = await openDevice({ kind: "cpu" });
  context = new Context(device);
  liveBytesBefore = device.memory().liveBytes;
  decoder = tinyDecoder(context, "f32");
});
afterAll(() => {
  decoder.dispose();
  expect(device.memory().liveBytes).toBe(liveBytesBefore);
  device.dispose();
});

const methods: readonly AdapterConfigInput[] = [
  { method: "lora", rank: 4, dropout: 0.3 },
  { method: "dora", rank: 4, dropout: 0.3, targets: ["q_proj", "v_proj", "down_proj"] },
  { method: "ia3" },
  { method: "houlsby", dim: 4, dropout: 0.2 },
  { method: "parallel", dim: 4, scale: 2, norm: true },
  { method: "prompt-tuning", numTokens: 3 },
  { method: "p-tuning", numTokens: 3, encoder: "mlp", hidden: 8 },
  { method: "p-tuning", numTokens: 3, encoder: "mlp-gelu", hidden: 8 },
  { method: "p-tuning", numTokens: 3, encoder: "lstm", hidden: 6, numLayers: 2 },
];

function make(input: AdapterConfigInput): Adapter {
  const adapter = createAdapter(decoder, {
    family: modelFamily(tinyConfig),
    config: parseAdapterConfig(input),
    dtype: "f32",
    gradientDtype: "f32",
  });
  adapter.initialise(context, 7);
  // Off the neutral start, where half of the gradients are zero.
  for (const parameter of adapter.parameters)
    parameter.set(parameter.toArray().map((value, i) => value + 0.1 * Math.sin(i + parameter.numElements)));
  adapter.dropoutBits = { seed: 5, microBatch: 0 };
  return adapter;
}

/** Mean loss of a batch; with gradients where a policy is given. */
function loss(adapter: Adapter, recompute?: RecomputePolicy): number {
  const { vocabSize } = tinyConfig;
  const batch = randomData(12).batch(0, 2);
  for (let i = 0; i < adapter.numVirtualTokens; i++)
    for (const begin of [0, 12]) batch.tokens[begin + i] = vocabSize + i;
  using tape = recompute && new Tape(recompute);
  return decoder.withAdapter(adapter, () =>
    context.scope(() => {
      const { sequences, targets } = uploadBatch(context, batch);
      const gradientScale = 1 / 24;
      const losses = context.withTape(tape, () =>
        decoder.loss(context, sequences, { targets, gradientScale }),
      );
      tape?.backward(context);
      return losses.toArray().reduce((sum, value) => sum + value, 0) / 24;
    }),
  );
}

function gradients(adapter: Adapter, recompute: RecomputePolicy): Float64Array[] {
  adapter.parameters.clearGradients();
  loss(adapter, recompute);
  return [...adapter.parameters].map((parameter) => {
    parameter.completeGradient();
    return parameter.gradient?.toArray() ?? new Float64Array();
  });
}

describe("gradients of adapters", () => {
  it.each(methods)("%j: against finite differences, under every recompute policy", (input) => {
    using adapter = make(input);
    const frozen = decoder.head.toBytes();
    const all = gradients(adapter, "none");
    for (const recompute of ["norm-activation", "block"] as const)
      for (const [index, gradient] of gradients(adapter, recompute).entries())
        expect(Buffer.from(gradient.buffer).equals(Buffer.from(all[index].buffer)), recompute).toBe(true);
    const norm = Math.sqrt(all.flatMap((gradient) => [...gradient]).reduce((sum, g) => sum + g * g, 0));
    expect(norm).toBeGreaterThan(1e-3);
    // Along the gradient itself, the loss rises by its norm.
    const start = [...adapter.parameters].map((parameter) => parameter.toArray());
    const at = (step: number): number => {
      for (const [index, parameter] of [...adapter.parameters].entries())
        parameter.set(start[index].map((value, i) => value + (step * all[index][i]) / norm));
      // A tape, so that what inference remembers of the parameters is forgotten.
      return loss(adapter, "none");
    };
    // DoRA takes its norms as constants, so the slope along them is another; along magnitudes alone it is this one.
    if (input.method === "dora") return;
    const h = 2e-2 / Math.max(1, norm);
    const numeric = (at(h) - at(-h)) / (2 * h);
    expect(Math.abs(numeric - norm) / norm).toBeLessThan(0.02);
    expect(Buffer.from(decoder.head.toBytes()).equals(Buffer.from(frozen))).toBe(true);
  });
});

describe("trained parameters of the 8B model", () => {
  const config = modelPreset("nemotron-3-8b");
  const modules = targetModules(modelFamily(config), config);
  const fused = (targets: string[]): number => {
    const chosen = selectTargets(modules, { targets });
    const inputs = new Map(chosen.map(({ place, numInputs }) => [JSON.stringify(place), numInputs]));
    const outputs = chosen.reduce((sum, { numOutputs }) => sum + numOutputs, 0);
    return 32 * (outputs + [...inputs.values()].reduce((sum, width) => sum + width, 0));
  };
  it("are NeMo's, for LoRA of rank 32 on fused projections and for IA3", () => {
    expect(countParameters(config)).toBeGreaterThan(8e9);
    expect(fused(["attention_qkv"])).toBe(16_777_216);
    expect(fused(["all"])).toBe(67_108_864);
    const ia3 = selectTargets(modules, { targets: ["k_proj", "v_proj", "down_proj"] });
    expect(
      ia3.reduce(
        (sum, { name, numInputs, numOutputs }) => sum + (name === "down_proj" ? numInputs : numOutputs),
        0,
      ),
    ).toBe(786_432);
  });
});
