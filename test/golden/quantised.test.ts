/**
 * Quantised weights: NF4 with double quantisation against bitsandbytes (fixture: test/fixtures/generate/quantised.py), a quantised decoder
 * against one in floats that holds the same values, and the memory model against the device's live bytes.
 */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { fromBf16Bits } from "../../src/base/index.ts";
import { nf4Values, quantisedFormats } from "../../src/device/index.ts";
import type { QuantisedFormat } from "../../src/device/index.ts";
import {
  adaptedProjections,
  adapterMemory,
  createAdapter,
  Decoder,
  modelFamily,
  parseAdapterConfig,
  weightBytes,
} from "../../src/models/index.ts";
import { Context, quantisedWeight, Tape, type Tensor } from "../../src/tensor/index.ts";
import { openOrSkip } from "../open-device.ts";
import { tinyConfig } from "../tiny-model.ts";

interface Golden {
  shape: [number, number];
  weight: number[];
  table: number[];
  codes: number[];
  values: number[];
}
const groupFormats = quantisedFormats.filter((format) => format !== "fp8");
/**
 * The root mean square error of a number rounded to three bits of fraction, as a share of the number: 2^-3 / sqrt(12) of its power of two,
 * which is 1 to 2 times smaller than the number, 1.39 on average over evenly spread logarithms.
 */
const e4m3Error = 2 ** -3 / Math.sqrt(12) / 1.39;
const path = new URL("../fixtures/golden/quantised.json", import.meta.url);
const golden = JSON.parse(readFileSync(path, "utf8")) as Golden;
const config = { ...tinyConfig, width: 64, ffnWidth: 128, headDim: 16 };

/** A decoder in `format`, and one in floats of the same values. The second is filled from the first. */
function pairOf(context: Context, format: QuantisedFormat): { quantised: Decoder; dense: Decoder } {
  const dense = new Decoder(context, config, { dtype: "f32" });
  dense.parameters.initialise(11);
  const quantised = new Decoder(context, config, { dtype: "f32", quantise: format });
  for (const parameter of quantised.parameters)
    parameter.setBytes(dense.parameters.get(parameter.name).toBytes());
  for (const [name, weight] of quantised.quantised) {
    context.scope(() => {
      weight.assign(context, dense.parameters.get(name));
      dense.parameters.get(name).setBytes(weight.dequantise(context, "f32").toBytes());
    });
  }
  return { quantised, dense };
}

function batchOf(context: Context, length: number) {
  const counted = Int32Array.from({ length }, (_, i) => i);
  return {
    tokens: context.tensor(
      counted.map((i) => (7 * i) % config.vocabSize),
      [length],
      "i32",
    ),
    positions: context.tensor(counted, [length], "i32"),
    numSequences: 1,
    sequenceLength: length,
  };
}

describe.each(["reference", "cpu", "cuda"] as const)("quantised weights on %s", (kind) => {
  it("gives bitsandbytes' NF4 codes and values", async (test) => {
    using device = await openOrSkip(kind, test);
    const context = new Context(device);
    expect(golden.table).toEqual([...nf4Values]);
    using weight = quantisedWeight(device, golden.shape, { format: "nf4" });
    context.scope(() => {
      const values = golden.weight.map(fromBf16Bits);
      weight.assign(context, context.tensor(values, golden.shape, "f32"));
      expect([...weight.codes.toBytes()]).toEqual(golden.codes);
      const given = weight.dequantise(context, "f32").toArray();
      for (const [i, expected] of golden.values.entries())
        expect(Math.abs(given[7 * i] - expected)).toBeLessThan(1e-6);
    });
  });

  it.for(groupFormats)("%s: a model equals one in floats of the same values", async (format, test) => {
    using device = await openOrSkip(kind, test);
    const context = new Context(device);
    const { quantised, dense } = pairOf(context, format);
    using _first = quantised;
    using _second = dense;
    for (const length of [5, 40]) {
      const [got, expected] = [quantised, dense].map((decoder) =>
        context.scope(() => {
          const y = decoder.forward(context, batchOf(context, length));
          return decoder.logits(context, y).toArray();
        }),
      );
      const scale = Math.max(...expected.map(Math.abs));
      for (const [i, value] of expected.entries())
        expect(Math.abs(got[i] - value)).toBeLessThan(1e-5 * scale);
    }
  });
});

/** Size of the difference of two vectors as a share of the second. */
function relativeError(got: ArrayLike<number>, expected: ArrayLike<number>): number {
  let [errors, squares] = [0, 0];
  for (let i = 0; i < expected.length; i++) {
    errors += (got[i] - expected[i]) ** 2;
    squares += expected[i] ** 2;
  }
  return Math.sqrt(errors / squares);
}

describe.each(["reference", "cpu", "cuda"] as const)("fp8 on %s", (kind) => {
  it.for([1, 16, 17, 70])("multiplies the values of both factors' codes: %i rows", async (m, test) => {
    using device = await openOrSkip(kind, test);
    const context = new Context(device);
    const [n, k] = [48, 160];
    using weight = quantisedWeight(device, [n, k], { format: "fp8" });
    context.scope(() => {
      const normal = (numRows: number, seed: number): Tensor => {
        const y = context.empty([numRows, k], "f32");
        const numElements = y.numElements;
        device.run("randomNormal", { y, numElements, seed, counter: 0, mean: 0, std: 1 });
        return y;
      };
      const [x, bias] = [normal(m, 1), context.full([n], "f32", 0.25)];
      weight.assign(context, normal(n, 2));
      // What the rows of x are as codes, found by the weights' own way.
      using rows = quantisedWeight(device, [m, k], { format: "fp8" });
      rows.assign(context, x);
      const [left, right] = [rows, weight].map((each) => each.dequantise(context, "f32").toArray());
      const y = context.empty([m, n], "f32");
      weight.multiply(context, { x, y, bias });
      const expected = Array.from({ length: m * n }, (_, i) => {
        const [row, column] = [Math.floor(i / n), i % n];
        let sum = 0.25;
        for (let j = 0; j < k; j++) sum += left[row * k + j] * right[column * k + j];
        return sum;
      });
      // Tensor cores cut sums off (test/conformance/tolerance.ts).
      expect(relativeError(y.toArray(), expected)).toBeLessThan(kind === "cuda" ? 10 * 2 ** -13 : 1e-6);
      expect(relativeError(left, x.toArray())).toBeLessThan(1.1 * e4m3Error);
      const dx = context.empty([m, k], "f32");
      weight.multiplyTransposed(context, { dy: y, dx });
      const given = y.toArray();
      const gradients = Array.from({ length: m * k }, (_, i) => {
        let sum = 0;
        for (let j = 0; j < n; j++) sum += given[Math.floor(i / k) * n + j] * right[j * k + (i % k)];
        return sum;
      });
      expect(relativeError(dx.toArray(), gradients)).toBeLessThan(1e-6);
    });
  });

  it("moves a model's logits by as much as rounding the inputs of its products does", async (test) => {
    using device = await openOrSkip(kind, test);
    const context = new Context(device);
    // The second has the first one's weights as their codes have them, so that inputs alone are rounded.
    const { quantised, dense } = pairOf(context, "fp8");
    using _first = quantised;
    using _second = dense;
    // A layer's four products err by a share of their own results, independently; that of `up` twice over, as it is squared.
    const shares = (1 + 1 + 2 ** 2 + 1) * config.numLayers;
    for (const length of [5, 40]) {
      const [got, expected] = [quantised, dense].map((decoder) =>
        context.scope(() =>
          decoder.logits(context, decoder.forward(context, batchOf(context, length))).toArray(),
        ),
      );
      const error = relativeError(got, expected);
      expect(error).toBeLessThan(e4m3Error * Math.sqrt(shares));
      expect(error).toBeGreaterThan(e4m3Error / 20);
    }
  });
});

describe.each(["reference", "cpu", "cuda"] as const)("fp8 on %s without gradients", (kind) => {
  it.for([false, true])("gives what it gives on a tape, bit for bit; gated: %s", async (isGated, test) => {
    using device = await openOrSkip(kind, test);
    const context = new Context(device);
    using decoder = new Decoder(context, { ...config, isGated }, { dtype: "bf16", quantise: "fp8" });
    decoder.parameters.initialise(11);
    for (const [index, weight] of [...decoder.quantised.values()].entries())
      context.scope(() => {
        const y = context.empty(weight.shape, "bf16");
        const normal = { seed: index, counter: 0, mean: 0, std: 0.2 };
        device.run("randomNormal", { y, numElements: y.numElements, ...normal });
        weight.assign(context, y);
      });
    // Without one, norms and activations make the codes of the products after them.
    const [alone, onTape] = [undefined, new Tape()].map((tape) =>
      context.scope(() => {
        const hidden = context.withTape(tape, () => decoder.forward(context, batchOf(context, 23)));
        const values = hidden.toArray();
        tape?.dispose();
        return values;
      }),
    );
    expect(alone).toEqual(onTape);
  });
});

describe("memory of quantised models", () => {
  it.for(quantisedFormats)("%s: the weights' live bytes are those of the estimate", async (format, test) => {
    using device = await openOrSkip("cpu", test);
    const context = new Context(device);
    const large = { ...config, width: 256, ffnWidth: 1024, headDim: 64, vocabSize: 1024 };
    const before = device.memory().liveBytes;
    using decoder = new Decoder(context, large, { dtype: "bf16", quantise: format });
    const rotaryBytes = decoder.rotary?.cosSin.byteLength ?? 0;
    const live = device.memory().liveBytes - before - rotaryBytes;
    expect(Math.abs(live / weightBytes(large, "bf16", format) - 1)).toBeLessThan(0.05);
  });

  const shapes = [
    { width: 256, ffnWidth: 1024, headDim: 64, numLayers: 6 },
    { width: 384, ffnWidth: 768, headDim: 96, numLayers: 3 },
  ];
  const runs = (["nf4", "fp8"] as const).flatMap((quantise) =>
    shapes.map((shape) => ({ quantise, width: shape.width, shape })),
  );
  it.for(runs)(
    "QLoRA on $quantise, width $width: peak bytes of a step lie within 5 % of the estimate",
    async ({ quantise, shape }, test) => {
      using device = await openOrSkip("cpu", test);
      const context = new Context(device);
      const large = { ...config, ...shape, vocabSize: 1024, maxPositions: 512 };
      const numRows = 512;
      const chunkBytes = 2 ** 18;
      const before = device.memory().liveBytes;
      using decoder = new Decoder(context, large, { dtype: "bf16", quantise });
      for (const weight of decoder.quantised.values()) {
        context.scope(() => {
          const dense = context.empty(weight.shape, "bf16");
          device.run("randomNormal", {
            y: dense,
            numElements: dense.numElements,
            seed: 1,
            counter: 0,
            mean: 0,
            std: 0.02,
          });
          weight.assign(context, dense);
        });
      }
      decoder.parameters.initialise(3);
      const lora = parseAdapterConfig({ method: "lora", rank: 16 });
      using adapter = createAdapter(decoder, {
        family: modelFamily(large),
        config: lora,
        dtype: "bf16",
        gradientDtype: "f32",
      });
      adapter.initialise(context, 1);
      decoder.attach(adapter);
      device.resetPeakMemory();
      context.scope(() => {
        using tape = new Tape("block");
        const batch = batchOf(context, numRows);
        context.withTape(tape, () =>
          decoder.loss(context, batch, { targets: batch.tokens, gradientScale: 1 / numRows, chunkBytes }),
        );
        tape.backward(context);
      });
      decoder.attach(undefined);
      const { optimizer, total } = adapterMemory(large, {
        dtype: "bf16",
        gradientDtype: "f32",
        moments: "f32",
        recompute: "block",
        quantise,
        adapted: adaptedProjections(large, { family: modelFamily(large), config: lora }),
        numTrained: adapter.numParameters,
        numRows,
        chunkBytes,
      });
      // The step above makes no optimizer's states.
      const peak = device.memory().peakLiveBytes - before;
      expect(peak / (total - optimizer)).toBeGreaterThan(0.95);
      expect(peak / (total - optimizer)).toBeLessThan(1.05);
    },
  );
});
