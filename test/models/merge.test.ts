/** Adapters that quantised weights cannot take: merged into them, and DoRA at all. */
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { ConfigError } from "../../src/base/index.ts";
import { openDevice, quantisedFormats } from "../../src/device/index.ts";
import {
  createAdapter,
  Decoder,
  loadAdapter,
  loadModelFolder,
  mergeAdapter,
  modelFamily,
  parseAdapterConfig,
} from "../../src/models/index.ts";
import { Context } from "../../src/tensor/index.ts";
import { tinyConfig } from "../tiny-model.ts";

const fixture = (name: string): string =>
  fileURLToPath(new URL(`../fixtures/adapters/${name}`, import.meta.url));

it.each(
  quantisedFormats.flatMap((format) =>
    (["lora", "dora", "ia3"] as const).map((method) => ({ format, method })),
  ),
)("$method is not merged into $format weights, which a sentence says", async ({ format, method }) => {
  using device = await openDevice({ kind: "reference" });
  const context = new Context(device);
  const family = modelFamily(tinyConfig);
  // Made for a decoder of the same shape in floats.
  using plain = new Decoder(context, tinyConfig, { dtype: "f32" });
  plain.parameters.initialise(1);
  using adapter = createAdapter(plain, { family, config: parseAdapterConfig({ method }), dtype: "f32" });
  using decoder = new Decoder(context, tinyConfig, { dtype: "f32", quantise: format });
  const merge = (): void => mergeAdapter(context, decoder, adapter);
  expect(merge).toThrow(ConfigError);
  expect(merge).toThrow(
    new RegExp(`expected weights in floats to merge into, got ${format} \\(open the model without`),
  );
});

it.each(quantisedFormats)("dora is not put on %s weights, which a sentence says", async (format) => {
  using device = await openDevice({ kind: "reference" });
  const context = new Context(device);
  using decoder = new Decoder(context, tinyConfig, { dtype: "f32", quantise: format });
  const create = (method: "dora" | "lora"): Disposable => {
    const config = parseAdapterConfig({ method });
    return createAdapter(decoder, { family: modelFamily(tinyConfig), config, dtype: "f32" });
  };
  expect(() => create("dora")).toThrow(ConfigError);
  expect(() => create("dora")).toThrow("expected a base in f32 or bf16 for dora, got a quantised one (load");
  // That the adapter is of another model would be no answer.
  using base = loadModelFolder(context, fixture("base"), { dtype: "f32", quantise: format });
  const load = (name: string): Disposable =>
    loadAdapter(context, base, { family: modelFamily(base.config), folder: fixture(name) });
  expect(() => load("dora")).toThrow("expected a base in f32 or bf16 for dora, got a quantised one (load");
  load("lora")[Symbol.dispose]();
  create("lora")[Symbol.dispose]();
});
