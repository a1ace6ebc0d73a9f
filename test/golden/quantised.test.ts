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
import { Context, QuantisedWeight, Tape } from "../../src/tensor/index.ts";
import { openOrSkip } from "../open-device.ts";
import { tinyConfig } from "../tiny-model.ts";

interface Golden {
  shape: [number, number];
  weight: number[];
  table: number[];
  codes: number[];
  values: number[];
}
const path = new URL("../fixtures/golden/quantised.json", import.meta.url);
const golden = JSON.parse(readFileSync(path, "utf8")) as Golden;
const formats = Object.keys(quantisedFormats) as QuantisedFormat[];
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
    using weight = new QuantisedWeight(device, golden.shape, { format: "nf4" });
    context.scope(() => {
      const values = golden.weight.map(fromBf16Bits);
      weight.assign(context, context.tensor(values, golden.shape, "f32"));
      expect([...weight.codes.toBytes()]).toEqual(golden.codes);
      const given = weight.dequantise(context, "f32").toArray();
      for (const [i, expected] of golden.values.entries())
        expect(Math.abs(given[7 * i] - expected)).toBeLessThan(1e-6);
    });
  });

  it.for(formats)("%s: a model equals one in floats of the same values", async (format, test) => {
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

describe("memory of quantised models", () => {
  it.for(formats)("%s: the weights' live bytes are those of the estimate", async (format, test) => {
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
  it.for(shapes)(
    "QLoRA, width $width: peak bytes of a step lie within 5 % of the estimate",
    async (shape, test) => {
      using device = await openOrSkip("cpu", test);
      const context = new Context(device);
      const large = { ...config, ...shape, vocabSize: 1024, maxPositions: 512 };
      const numRows = 512;
      const chunkBytes = 2 ** 18;
      const before = device.memory().liveBytes;
      using decoder = new Decoder(context, large, { dtype: "bf16", quantise: "nf4" });
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
        quantise: "nf4",
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
