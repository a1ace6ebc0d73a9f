/** The demonstration model of this repository, and the adapter of its example, in Python's transformers and peft. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { openDevice } from "../../src/device/index.ts";
import type { Device } from "../../src/device/index.ts";
import { loadAdapter, loadModelFolder, modelFamily } from "../../src/models/index.ts";
import type { Decoder } from "../../src/models/index.ts";
import { Context } from "../../src/tensor/index.ts";
import { loadTokenizer } from "../../src/text/index.ts";
import { startCli } from "../app/run-cli.ts";
import { hasModules, runPython } from "./python.ts";

const path = (relative: string): string => fileURLToPath(new URL(`../../${relative}`, import.meta.url));
const demonstration = path("demo/nautilus-demo-20m");
const numGreedyTokens = 64;
const prompts = [
  "The old sailor",
  "import { readFileSync } from",
  "Il était une fois, dans la forêt,",
  "def main():\n    ",
  "Es war einmal 12 × 3 = 36 🐙",
];
const scratch = mkdtempSync(join(tmpdir(), "nautilus-demo-"));
let device: Device;
let context: Context;
let decoder: Decoder;
beforeAll(async () => {
  device = await openDevice({ kind: "cpu" });
  context = new Context(device);
  decoder = loadModelFolder(context, demonstration, "f32");
});
afterAll(() => {
  decoder.dispose();
  device.dispose();
  rmSync(scratch, { recursive: true });
});

/** Of every place of one text: (T, V), flat. */
function logits(ids: readonly number[]): readonly number[] {
  return context.scope(() => {
    const hidden = decoder.forward(context, {
      tokens: context.tensor(ids, [ids.length], "i32"),
      positions: context.tensor([...ids.keys()], [ids.length], "i32"),
      numSequences: 1,
      sequenceLength: ids.length,
    });
    return [...decoder.logits(context, hidden).toArray()];
  });
}

/** Largest difference, as a share of the largest logit. */
function distance(ours: readonly number[], theirs: readonly number[]): number {
  let [most, largest] = [0, 0];
  for (const [i, value] of theirs.entries()) {
    most = Math.max(most, Math.abs(ours[i] - value));
    largest = Math.max(largest, Math.abs(value));
  }
  return most / largest;
}

const cliAnswers = z.object({ results: z.array(z.object({ tokens: z.array(z.number()) })) });

describe.skipIf(!hasModules("The demonstration model in transformers", ["transformers", "torch"]))(
  "The demonstration model in transformers",
  () => {
    it("has the same ids, logits, and greedy tokens as 'nautilus generate'", async () => {
      const answer = await runPython("generate.py", [
        demonstration,
        JSON.stringify(prompts),
        String(numGreedyTokens),
      ]);
      const theirs = z
        .array(
          z.object({ ids: z.array(z.number()), logits: z.array(z.number()), greedy: z.array(z.number()) }),
        )
        .parse(answer);
      expect(theirs.length).toBe(prompts.length);
      const tokenizer = loadTokenizer(demonstration);
      for (const [index, { ids, logits: wanted }] of theirs.entries()) {
        expect([...tokenizer.encode(prompts[index])], prompts[index]).toEqual(ids);
        const ours = logits(ids);
        expect(ours.length).toBe(wanted.length);
        expect(distance(ours, wanted), prompts[index]).toBeLessThan(1e-5);
      }
      const how = ["--model", demonstration, "--precision", "f32", "--device", "cpu", "--temperature", "0"];
      const { code, stdout, stderr } = await startCli([
        "generate",
        ...how,
        "--max-tokens",
        String(numGreedyTokens),
        "--json",
        ...prompts.flatMap((prompt) => ["--prompt", prompt]),
      ]).result;
      expect(code, stderr).toBe(0);
      const { results } = cliAnswers.parse(JSON.parse(stdout));
      expect(results.map(({ tokens }) => tokens)).toEqual(theirs.map(({ greedy }) => greedy));
    });
  },
);

describe.skipIf(!hasModules("The example's adapter in peft", ["peft", "transformers", "torch"]))(
  "The example's adapter in peft",
  () => {
    it("gives our logits after the whole example", async () => {
      const run = join(scratch, "pirate");
      const tuned = await startCli(["tune", path("examples/tune/pirate.ts"), "--run", run, "--device", "cpu"])
        .result;
      expect(tuned.code, tuned.stderr).toBe(0);
      const folder = join(run, "adapter");
      const tokenizer = loadTokenizer(demonstration);
      const held = readFileSync(path("examples/tune/pirate-held-out.jsonl"), "utf8").trim().split("\n");
      const { input, output } = z
        .object({ input: z.string(), output: z.string() })
        .parse(JSON.parse(held[0]));
      const ids = [...tokenizer.encode(`${input} ${output}`)];
      using adapter = loadAdapter(context, decoder, { family: modelFamily(decoder.config), folder });
      const plain = logits(ids);
      const ours = decoder.withAdapter(adapter, () => logits(ids));
      const answer = await runPython("peft_logits.py", [demonstration, JSON.stringify([ids]), folder]);
      const [theirs] = z.array(z.array(z.number())).parse(answer);
      expect(theirs.length).toBe(ours.length);
      expect(distance(ours, theirs)).toBeLessThan(1e-5);
      expect(distance(plain, theirs)).toBeGreaterThan(0.1);
    });
  },
);
