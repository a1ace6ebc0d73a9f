/**
 * LoRA adapters in NeMo's files: the logits that NeMo's arithmetic gives, whole, from a grid of ranks and canonical; exported as PEFT's.
 * Fixtures: test/fixtures/generate/adapters_nemo.py.
 */
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openDevice } from "../../src/device/index.ts";
import type { Device } from "../../src/device/index.ts";
import {
  isAdapterFolder,
  loadAdapter,
  loadModelFolder,
  mergeAdapter,
  modelFamily,
  readAdapterFolder,
  saveAdapter,
} from "../../src/models/index.ts";
import type { Decoder } from "../../src/models/index.ts";
import { Context } from "../../src/tensor/index.ts";
import { adapterFixture, largestDifference, logitsOf, readGolden } from "./adapterFixture.ts";

const fixture = adapterFixture;
const golden = readGolden("nemo/logits.json");

let device: Device;
let context: Context;
let decoder: Decoder;
let scratch: string;
beforeAll(async () => {
  device = await openDevice({ kind: "cpu" });
  context = new Context(device);
  decoder = loadModelFolder(context, fixture("base"), "f32");
  scratch = mkdtempSync(join(tmpdir(), "nautilus-nemo-lora-"));
});
afterAll(() => {
  decoder.dispose();
  expect(device.memory().liveBytes).toBe(0);
  device.dispose();
  rmSync(scratch, { recursive: true });
});

const logits = (model: Decoder): Float64Array => logitsOf(context, model, golden);

describe("NeMo's LoRA", () => {
  it.each([
    ["fused.nemo", "fused"],
    ["tp2-pp2.nemo", "fused"],
    ["canonical.nemo", "canonical"],
  ])("%s: NeMo's logits, merged and exported too", (file, name) => {
    const folder = fixture(`nemo/${file}`);
    const family = modelFamily(decoder.config);
    expect(isAdapterFolder(folder)).toBe(true);
    expect(readAdapterFolder(folder)).toMatchObject({
      baseModel: "models/tiny.nemo",
      config: { method: "lora", rank: 4, alpha: 6 },
    });
    using adapter = loadAdapter(context, decoder, { family, folder });
    const got = decoder.withAdapter(adapter, () => logits(decoder));
    expect(largestDifference(got, golden.logits[name])).toBeLessThan(2e-5);
    expect(largestDifference(got, logits(decoder))).toBeGreaterThan(0.05);
    using merged = loadModelFolder(context, fixture("base"), "f32");
    mergeAdapter(context, merged, adapter);
    expect(largestDifference(logits(merged), got)).toBeLessThan(2e-5);
    const written = join(scratch, name);
    saveAdapter(context, adapter, { decoder, family, folder: written, baseModel: "tiny" });
    using again = loadAdapter(context, decoder, { family, folder: written });
    decoder.withAdapter(again, () => expect(largestDifference(logits(decoder), got)).toBe(0));
  });

  it("refuses damaged files and what is no adapter", () => {
    const cut = join(scratch, "cut.nemo");
    writeFileSync(cut, readFileSync(fixture("nemo/fused.nemo")).subarray(0, 3000));
    expect(() => isAdapterFolder(cut)).toThrow(/too few for its member/);
    const model = join(scratch, "model.nemo");
    copyFileSync(fileURLToPath(new URL("../fixtures/golden/gpt2.nemo", import.meta.url)), model);
    expect(isAdapterFolder(model)).toBe(false);
    const bytes = readFileSync(fixture("nemo/fused.nemo"));
    const other = join(scratch, "other.nemo");
    const text = bytes.toString("latin1").replace("peft_scheme: lora\n", "peft_scheme: ia3 \n");
    writeFileSync(other, Buffer.from(text, "latin1"));
    expect(() => readAdapterFolder(other)).toThrow(/expected peft_scheme lora .*got ia3/);
    const heads = join(scratch, "heads.nemo");
    const wrong = bytes.toString("latin1").replace("kv_channels: 8", "kv_channels: 4");
    writeFileSync(heads, Buffer.from(wrong, "latin1"));
    expect(() => readAdapterFolder(heads)).toThrow(
      /expected .*lora_kqv_adapter.linear_out.weight of 32 rows/,
    );
  });
});
