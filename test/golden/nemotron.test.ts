/**
 * The decoder against transformers' NemotronForCausalLM: logits, loss, every gradient, and ten AdamW steps of a tiny random
 * model, on every backend that is here (fixtures: test/fixtures/generate/nemotron_golden.py).
 */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { decodeValues, invariant } from "../../src/base/index.ts";
import { openSafetensors } from "../../src/checkpoint/index.ts";
import type { TensorSource } from "../../src/checkpoint/index.ts";
import type { Device } from "../../src/device/index.ts";
import { Decoder, nemotron, parseModelConfig } from "../../src/models/index.ts";
import { openOrSkip } from "../open-device.ts";
import { Context, Tape } from "../../src/tensor/index.ts";
import type { RecomputePolicy, Tensor } from "../../src/tensor/index.ts";
import { AdamW, ignoreIndex, TrainingStep } from "../../src/train/index.ts";
import type { HostBatch } from "../../src/train/index.ts";

const fixture = (name: string): string =>
  fileURLToPath(new URL(`../fixtures/golden/${name}`, import.meta.url));
const config = parseModelConfig(JSON.parse(readFileSync(fixture("nemotron-config.json"), "utf8")));

interface Curve {
  learningRate: number;
  weightDecay: number;
  betas: [number, number];
  eps: number;
  maxNorm: number;
  losses: number[];
  gradientNorms: number[];
}
const curve = JSON.parse(readFileSync(fixture("nemotron-curve.json"), "utf8")) as Curve;

function values(source: TensorSource, name: string): Float64Array {
  const { dtype } = source.info(name);
  invariant(dtype === "f32" || dtype === "i32", "fixtures in f32 and i32");
  return decodeValues(dtype, source.read(name));
}

function batchOf(source: TensorSource, step: number): HostBatch {
  const [, numSequences, sequenceLength] = source.info("tokens").shape;
  const count = numSequences * sequenceLength;
  const slice = (name: string): Int32Array =>
    Int32Array.from(values(source, name).subarray(step * count, (step + 1) * count));
  const targets = slice("targets").map((target) => (target === -1 ? ignoreIndex : target));
  return { tokens: slice("tokens"), targets, numSequences, sequenceLength };
}

function loadWeights(decoder: Decoder, source: TensorSource): void {
  for (const { name, parameter, rowStart, numRows } of nemotron.weightSlices(config)) {
    using rows = decoder.parameters.get(parameter).rows(rowStart, rowStart + numRows);
    rows.set(values(source, `weight.${name}`));
  }
}

/** Largest difference, relative to the largest magnitude of the expected values. */
function relativeError(got: ArrayLike<number>, expected: Float64Array): number {
  const scale = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-30);
  return expected.reduce((worst, value, i) => Math.max(worst, Math.abs(got[i] - value)), 0) / scale;
}

function withModel(
  device: Device,
  body: (context: Context, decoder: Decoder, source: TensorSource) => void,
): void {
  const liveBytes = device.memory().liveBytes;
  const context = new Context(device);
  {
    using source = openSafetensors(fixture("nemotron.safetensors"));
    using decoder = new Decoder(context, config, { dtype: "f32", gradientDtype: "f32" });
    loadWeights(decoder, source);
    body(context, decoder, source);
  }
  expect(device.memory().liveBytes).toBe(liveBytes);
}

// The fixtures are float32: what remains is the rounding of two float32 computations.
const tolerance = 2e-5;

describe.each(["reference", "cpu", "cuda"] as const)("Nemotron on %s against transformers", (kind) => {
  it("gives its logits", async (test) => {
    using device = await openOrSkip(kind, test);
    withModel(device, (context, decoder, source) => {
      const { tokens, numSequences, sequenceLength } = batchOf(source, 0);
      context.scope(() => {
        const ids = context.tensor(tokens, [tokens.length], "i32");
        const positions = context.tensor(
          tokens.map((_, row) => row % sequenceLength),
          [tokens.length],
          "i32",
        );
        const hidden = decoder.forward(context, { tokens: ids, positions, numSequences, sequenceLength });
        expect(
          relativeError(decoder.logits(context, hidden).toArray(), values(source, "logits")),
        ).toBeLessThan(tolerance);
      });
    });
  });

  it.for(["none", "norm-activation", "block"] satisfies RecomputePolicy[])(
    "gives its loss and gradients, recomputing %s",
    async (recompute, test) => {
      using device = await openOrSkip(kind, test);
      withModel(device, (context, decoder, source) => {
        const batch = batchOf(source, 0);
        const numTargets = batch.targets.filter((target) => target !== ignoreIndex).length;
        context.scope(() => {
          const upload = (host: Int32Array): Tensor => context.tensor(host, [host.length], "i32");
          const { numSequences, sequenceLength } = batch;
          const positions = upload(batch.tokens.map((_, row) => row % sequenceLength));
          const sequences = { tokens: upload(batch.tokens), positions, numSequences, sequenceLength };
          using tape = new Tape(recompute);
          const losses = context.withTape(tape, () =>
            decoder.loss(context, sequences, {
              targets: upload(batch.targets),
              ignoreIndex,
              gradientScale: 1 / numTargets,
              // Several chunks with an uneven last one.
              chunkBytes: 96 * 4 * 20,
            }),
          );
          tape.backward(context);
          const loss = losses.toArray().reduce((total, value) => total + value, 0) / numTargets;
          expect(Math.abs(loss - values(source, "loss")[0])).toBeLessThan(1e-5);
        });
        for (const { name, parameter, rowStart, numRows } of nemotron.weightSlices(config)) {
          const { gradient } = decoder.parameters.get(parameter);
          invariant(gradient !== undefined, "a trained parameter");
          using rows = gradient.rows(rowStart, rowStart + numRows);
          expect(relativeError(rows.toArray(), values(source, `gradient.${name}`)), name).toBeLessThan(
            tolerance,
          );
          expect(0).toBeLessThan(10 * tolerance);
        }
      });
    },
  );

  it("follows its loss curve over ten AdamW steps", async (test) => {
    using device = await openOrSkip(kind, test);
    withModel(device, (context, decoder, source) => {
      using optimizer = new AdamW(context, decoder.parameters, {
        betas: curve.betas,
        eps: curve.eps,
        weightDecay: curve.weightDecay,
        clip: curve.maxNorm,
        moments: "f32",
        master: false,
      });
      using training = new TrainingStep(context, { decoder, optimizer, recompute: "none" });
      for (const [index, expected] of curve.losses.entries()) {
        const options = { step: index + 1, learningRate: curve.learningRate, seed: 1, skipAboveNorm: 0 };
        const { loss, gradientNorm } = training.run([batchOf(source, index)], options).wait();
        expect(Math.abs(loss - expected), `loss of step ${index + 1}`).toBeLessThan(2e-4);
        expect(
          Math.abs(gradientNorm / curve.gradientNorms[index] - 1),
          `norm of step ${index + 1}`,
        ).toBeLessThan(2e-3);
      }
    });
  });
});
