/** Families other than Nemotron through the command line: named, measured, trained from text and run. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { listCheckpoints } from "../../src/train/index.ts";
import { fixture } from "./model-folders.ts";
import { runCli, startCli } from "./run-cli.ts";

const folder = mkdtempSync(join(tmpdir(), "nautilus-families-"));
afterAll(() => rmSync(folder, { recursive: true }));

describe("model info and list", () => {
  it("know all families", async () => {
    const list = await runCli("model", "list", "--json");
    const models = JSON.parse(list.stdout) as { name: string; parameters: number }[];
    const byName = new Map(models.map(({ name, parameters }) => [name, parameters]));
    expect(byName.get("gpt2")).toBe(124_439_808);
    expect(byName.get("llama-3.1-8b")).toBe(8_030_261_248);
    const info = await runCli("model", "info", "mistral-7b-v0.1");
    expect(info.stdout).toMatch(/7,241,732,096/);
    const gpt2 = await runCli("model", "info", "gpt2");
    expect(gpt2.stdout).toMatch(/positions +learned; up to 1024/);
    const llama = await runCli("model", "info", "llama-3.2-1b");
    expect(llama.stdout).toMatch(
      /positions +rotary: 64 of 64 components, base 500000, llama3 scaling by 32; up to 131072/,
    );
    const nemo = await runCli("model", "info", fixture("golden/gpt2.nemo"));
    expect(nemo.stdout).toMatch(/shape +2 layers, width 24, ffn 28, vocabulary 61/);
    const wrong = await runCli("model", "info", "gpt3");
    expect([wrong.code, wrong.stderr]).toEqual([2, expect.stringContaining("did you mean 'gpt2'?")]);
  });
});

describe.each([
  ["llama-tiny", { numHeads: 4, numKvHeads: 2, headDim: 8 }, { model_type: "llama", num_key_value_heads: 2 }],
  ["gpt2-tiny", { numHeads: 2, numKvHeads: 2, headDim: 16 }, { model_type: "gpt2", n_embd: 32 }],
  [
    "qwen2.5-0.5b",
    { numHeads: 4, numKvHeads: 1, headDim: 8 },
    { model_type: "qwen2", tie_word_embeddings: true },
  ],
])("%s", (preset, heads, expectedConfig) => {
  beforeAll(() => {
    mkdirSync(join(folder, "texts"), { recursive: true });
    for (let file = 0; file < 20; file++)
      writeFileSync(
        join(folder, "texts", `${file}.txt`),
        `She sells sea shells by the sea shore ${file}. `.repeat(40),
      );
    const recipe = {
      run: preset,
      model: { preset, width: 32, ffnWidth: 64, numLayers: 2, ...heads },
      tokenizer: { vocabSize: 320, sampleBytes: 100_000 },
      data: { train: [{ source: { kind: "tree", paths: "texts" } }], split: "80,20,0" },
      sequenceLength: 32,
      totalTokens: 40 * 256,
      batchTokens: 256,
      microBatchSequences: 4,
      precision: "bf16",
      optim: { lr: 0.01, minLr: 0.001, warmupTokens: 512 },
      device: "cpu",
      threads: 1,
      evaluation: { everySteps: 0 },
      checkpoint: { everySteps: 20 },
    };
    writeFileSync(join(folder, `${preset}.json`), JSON.stringify(recipe));
  });

  it("is trained from text, saved as transformers has it, and continues a text", async () => {
    const { code, stderr } = await startCli(["train", `${preset}.json`], { cwd: folder }).result;
    expect(code, stderr).toBe(0);
    const losses = readFileSync(join(folder, preset, "metrics.jsonl"), "utf8")
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as { kind: string; loss: number })
      .filter(({ kind }) => kind === "train")
      .map(({ loss }) => loss);
    expect(losses).toHaveLength(40);
    expect(losses[39]).toBeLessThan(losses[0] - 1);
    const saved = listCheckpoints(join(folder, preset)).at(-1)?.path ?? "";
    const config: unknown = JSON.parse(readFileSync(join(saved, "model", "config.json"), "utf8"));
    expect(config).toMatchObject(expectedConfig);
    const args = [
      "--prompt",
      "She sells sea",
      "--max-tokens",
      "8",
      "--temperature",
      "0",
      "--json",
      "--device",
      "cpu",
    ];
    const generated = await runCli("generate", "--model", join(folder, preset), ...args);
    expect(generated.code, generated.stderr).toBe(0);
    const { results } = JSON.parse(generated.stdout) as { results: { text: string }[] };
    expect(results[0].text).toContain("shells by the sea");
  });
});
