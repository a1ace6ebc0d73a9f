/** Merging an adapter into weights that cannot take it. */
import { expect, it } from "vitest";
import { ConfigError } from "../../src/base/index.ts";
import { openDevice, quantisedFormats } from "../../src/device/index.ts";
import {
  createAdapter,
  Decoder,
  mergeAdapter,
  modelFamily,
  parseAdapterConfig,
} from "../../src/models/index.ts";
import { Context } from "../../src/tensor/index.ts";
import { tinyConfig } from "../tiny-model.ts";

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
