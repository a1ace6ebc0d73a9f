/**
 * Adapters against PEFT: files read there give its logits here, and what is written here has its tensors; neutral starts change nothing,
 * merged is unmerged. Fixtures: test/fixtures/generate/adapters.py.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { numElements } from "../../src/base/index.ts";
import { openSafetensors } from "../../src/checkpoint/index.ts";
import { openDevice } from "../../src/device/index.ts";
import type { Device } from "../../src/device/index.ts";
import {
  adapterSpecs,
  createAdapter,
  Decoder,
  loadAdapter,
  loadModelFolder,
  mergeAdapter,
  modelFamily,
  parseAdapterConfig,
  saveAdapter,
} from "../../src/models/index.ts";
import type { Adapter, AdapterConfigInput } from "../../src/models/index.ts";
import { Context } from "../../src/tensor/index.ts";
import { adapterFixture, largestDifference, logitsOf, readGolden } from "./adapterFixture.ts";

const fixture = adapterFixture;
const golden = readGolden("logits.json");

let device: Device;
let context: Context;
let decoder: Decoder;
let scratch: string;
let liveBytesBefore: number;
beforeAll(async () => {
  device = await openDevice({ kind: "cpu" });
  context = new Context(device);
  liveBytesBefore = device.memory().liveBytes;
  decoder = loadModelFolder(context, fixture("base"), "f32");
  scratch = mkdtempSync(join(tmpdir(), "nautilus-adapters-"));
});
afterAll(() => {
  decoder.dispose();
  expect(device.memory().liveBytes).toBe(liveBytesBefore);
  device.dispose();
  rmSync(scratch, { recursive: true });
});

/** Logits of the fixture's tokens, without those of virtual tokens. */
const logits = (model: Decoder, numVirtual = 0): Float64Array =>
  logitsOf(context, model, { tokens: golden.tokens, numVirtual });

const family = () => modelFamily(decoder.config);

function withAdapter(adapter: Adapter, body: () => void): void {
  using owned = adapter;
  decoder.withAdapter(owned, body);
}

describe("PEFT's adapters", () => {
  it.each(["lora", "rslora", "dora", "ia3", "prompt", "ptuning"])(
    "%s: same logits, merged too, and written as read",
    (name) => {
      expect(largestDifference(logits(decoder), golden.logits["base"])).toBeLessThan(2e-5);
      const folder = fixture(name);
      withAdapter(loadAdapter(context, decoder, { family: family(), folder }), () => {
        const adapter = decoder.adapter as Adapter;
        const got = logits(decoder, adapter.numVirtualTokens);
        expect(largestDifference(got, golden.logits[name])).toBeLessThan(2e-5);
        expect(largestDifference(got, golden.logits["base"])).toBeGreaterThan(0.05);
        const written = join(scratch, name);
        saveAdapter(context, adapter, { decoder, family: family(), folder: written, baseModel: "tiny" });
        using ours = openSafetensors(join(written, "adapter_model.safetensors"));
        using theirs = openSafetensors(join(folder, "adapter_model.safetensors"));
        expect([...ours.names()].sort()).toEqual([...theirs.names()].sort());
        for (const tensor of theirs.names()) {
          expect(ours.info(tensor).shape, tensor).toEqual(theirs.info(tensor).shape);
          expect(Buffer.from(ours.read(tensor)).equals(Buffer.from(theirs.read(tensor))), tensor).toBe(true);
        }
        using again = loadAdapter(context, decoder, { family: family(), folder: written });
        decoder.withAdapter(again, () => {
          expect(largestDifference(logits(decoder, again.numVirtualTokens), got)).toBe(0);
        });
        if (name === "prompt" || name === "ptuning") {
          expect(() => mergeAdapter(context, decoder, adapter)).toThrow(
            /expected lora, dora or ia3 to merge/,
          );
          return;
        }
        using merged = loadModelFolder(context, fixture("base"), "f32");
        mergeAdapter(context, merged, adapter);
        expect(largestDifference(logits(merged), got)).toBeLessThan(2e-5);
      });
      expect(largestDifference(logits(decoder), golden.logits["base"])).toBeLessThan(2e-5);
    },
  );

  it("refuses an adapter of another base", () => {
    using wide = new Decoder(context, { ...decoder.config, width: 16 }, { dtype: "f32" });
    using other = createAdapter(wide, {
      family: family(),
      config: parseAdapterConfig({ method: "lora", rank: 2 }),
      dtype: "f32",
    });
    const folder = join(scratch, "other");
    saveAdapter(context, other, { decoder: wide, family: family(), folder, baseModel: "x" });
    expect(() => loadAdapter(context, decoder, { family: family(), folder })).toThrow(
      /expected .*lora_A.weight of shape \(2, 32\), got \(2, 16\) .*another base model/,
    );
    expect(() =>
      loadAdapter(context, decoder, { family: family(), folder: join(scratch, "nowhere") }),
    ).toThrow(/expected an adapter folder .* got nothing there/);
  });
});

describe("a fresh adapter", () => {
  const neutral: readonly AdapterConfigInput[] = [
    { method: "lora" },
    { method: "lora", targets: ["*layers.1*.q_proj", "mlp"], rsLora: true, dropout: 0.5, init: "gaussian" },
    { method: "dora", targets: "attention" },
    { method: "ia3" },
    { method: "houlsby", dim: 4 },
    { method: "parallel", dim: 4, scale: 4 },
  ];
  it.each(neutral)("changes no logit: %j", (input) => {
    const config = parseAdapterConfig(
      "rank" in input || input.method === "lora" || input.method === "dora" ? { rank: 4, ...input } : input,
    );
    const base = logits(decoder);
    const adapter = createAdapter(decoder, { family: family(), config, dtype: "f32" });
    const specs = adapterSpecs(decoder.config, { family: family(), config });
    expect(specs.map(({ name }) => name)).toEqual([...adapter.parameters].map(({ name }) => name));
    expect(specs.reduce((sum, { shape }) => sum + numElements(shape), 0)).toBe(adapter.numParameters);
    adapter.initialise(context, 3);
    withAdapter(adapter, () => expect(largestDifference(logits(decoder), base)).toBe(0));
  });

  it("names what it cannot find", () => {
    const make = (input: AdapterConfigInput): Adapter =>
      createAdapter(decoder, { family: family(), config: parseAdapterConfig(input), dtype: "f32" });
    expect(() => make({ method: "lora", targets: "q_porj" })).toThrow(
      /expected a module of the model, got 'q_porj' .*did you mean 'q_proj'/,
    );
    expect(() => make({ method: "lora", layers: [9] })).toThrow(/expected layers 0 to 1, got 9/);
    expect(() => make({ method: "lora", rank: 0 })).toThrow(/rank: expected/);
    expect(() => make({ method: "lora", rank: 4000 })).toThrow(/rank: expected at most/);
    expect(() => make({ method: "ia3", feedforward: "q_proj" })).toThrow(/expected a module of the model/);
    expect(() => parseAdapterConfig({ method: "lora", rnak: 3 })).toThrow(/did you mean 'rank'/);
  });
});
