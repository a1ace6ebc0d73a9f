/** Adapters made and written here, opened by Python's peft: it computes our logits. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { openDevice } from "../../src/device/index.ts";
import {
  createAdapter,
  loadModelFolder,
  modelFamily,
  parseAdapterConfig,
  saveAdapter,
} from "../../src/models/index.ts";
import type { AdapterConfigInput, Decoder } from "../../src/models/index.ts";
import { Context } from "../../src/tensor/index.ts";
import { hasModules, runPython } from "./python.ts";

const base = fileURLToPath(new URL("../fixtures/adapters/base", import.meta.url));
const tokens = [
  [5, 9, 33, 12, 60, 7],
  [41, 3, 18, 18, 22, 50],
];
const scratch = mkdtempSync(join(tmpdir(), "nautilus-peft-"));
afterAll(() => rmSync(scratch, { recursive: true }));

const adapters: Record<string, AdapterConfigInput> = {
  lora: { method: "lora", targets: "all-linear", rank: 4, alpha: 6, rankPattern: { down_proj: 2 } },
  "lora of one layer, rank-stabilised": {
    method: "lora",
    targets: "attention",
    layers: [1],
    rank: 3,
    rsLora: true,
  },
  dora: { method: "dora", targets: ["q_proj", "down_proj"], rank: 4 },
  ia3: { method: "ia3" },
  "prompt tuning": { method: "prompt-tuning", numTokens: 3 },
  "p-tuning": { method: "p-tuning", numTokens: 4, hidden: 12 },
};

/** Values between -0.3 and 0.3 that are the same in every run. */
function steadyValues(length: number): number[] {
  return Array.from({ length }, (_, i) => 0.3 * Math.sin(1 + i * i * 0.37));
}

function logits(context: Context, decoder: Decoder, numVirtual: number): number[] {
  const { vocabSize } = decoder.config;
  const virtual = Array.from({ length: numVirtual }, (_, i) => vocabSize + i);
  const rows = tokens.flatMap((row) => [...virtual, ...row]);
  const sequenceLength = numVirtual + tokens[0].length;
  const all = context.scope(() => {
    const positions = rows.map((_, row) => row % sequenceLength);
    const hidden = decoder.forward(context, {
      tokens: context.tensor(rows, [rows.length], "i32"),
      positions: context.tensor(positions, [rows.length], "i32"),
      numSequences: tokens.length,
      sequenceLength,
    });
    return decoder.logits(context, hidden).toArray();
  });
  return [...all].filter((_, i) => Math.floor(i / vocabSize) % sequenceLength >= numVirtual);
}

describe.skipIf(!hasModules("Python's peft", ["peft", "transformers", "torch"]))("Python's peft", () => {
  it("computes our logits from every adapter that we write", async () => {
    using device = await openDevice({ kind: "cpu" });
    const context = new Context(device);
    using decoder = loadModelFolder(context, base, "f32");
    const family = modelFamily(decoder.config);
    const plain = logits(context, decoder, 0);
    const ours = Object.entries(adapters).map(([name, input], index) => {
      const config = parseAdapterConfig(input);
      using adapter = createAdapter(decoder, { family, config, dtype: "f32" });
      adapter.initialise(context, 3);
      for (const parameter of adapter.parameters) {
        const around = config.method === "ia3" || parameter.name.endsWith("magnitude_vector") ? 1 : 0;
        parameter.set(steadyValues(parameter.numElements).map((value) => around + value));
      }
      const folder = join(scratch, String(index));
      saveAdapter(context, adapter, { decoder, family, folder, baseModel: base });
      const got = decoder.withAdapter(adapter, () => logits(context, decoder, adapter.numVirtualTokens));
      return { name, folder, got };
    });
    const folders = ours.map(({ folder }) => folder);
    const answer = await runPython("peft_logits.py", [base, JSON.stringify(tokens), ...folders]);
    const theirs = z.array(z.array(z.number())).parse(answer);
    expect(theirs.length).toBe(ours.length);
    for (const [index, { name, got }] of ours.entries()) {
      const differences = (other: readonly number[]): number[] =>
        got.map((value, i) => Math.abs(value - other[i]));
      expect(theirs[index].length, name).toBe(got.length);
      expect(Math.max(...differences(theirs[index])), name).toBeLessThan(3e-5);
      expect(Math.max(...differences(plain)), name).toBeGreaterThan(0.05);
    }
  });
});
