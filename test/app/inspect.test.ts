/** `nautilus inspect` on a checkpoint of every format: what it shows, that it stays within 80 columns, and its JSON. */
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { countParameters, parseModelConfig } from "../../src/models/index.ts";
import { fixture, smallConfig, writeModel } from "./model-folders.ts";
import { runCli } from "./run-cli.ts";

const work = mkdtempSync(join(tmpdir(), "nautilus-inspect-"));
afterAll(() => rmSync(work, { recursive: true }));

async function inspect(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await runCli("inspect", ...args);
  expect(code, stderr).toBe(0);
  return stdout;
}

function expectNarrow(text: string): void {
  for (const line of text.split("\n").slice(1)) {
    // A word longer than a line cannot be broken.
    if (line.trim().includes("  ") || line.trim().includes(" "))
      expect(line.length, line).toBeLessThanOrEqual(80);
  }
}

describe("a model", () => {
  it("is told in lines of 80 columns, with tokenizer, license and layers in one", async () => {
    const folder = join(work, "model");
    await writeModel(folder, smallConfig("nemotron-tiny"), { dtype: "bf16" });
    writeFileSync(
      join(folder, "README.md"),
      "---\nlicense: other\nlicense_name: some-terms\nlicense_link: https://example.org/terms\nbase_model: org/base\n---\n# A model\n",
    );
    const text = await inspect(folder);
    expectNarrow(text);
    for (const expected of [
      /format +Hugging Face folder/,
      /family +nemotron/,
      /shape +2 layers, width 24, ffn 40, vocabulary 900/,
      /heads +3 query, 1 key\/value, 8 wide/,
      /positions +rotary: 4 of 8 components, base 10000; up to 64/,
      /tokenizer +SentencePiece, 900 tokens; bos \d+, eos \d+/,
      /license +some-terms https:\/\/example\.org\/terms/,
      /base model +org\/base/,
      /model\.layers\.\*\.mlp\.up_proj\.weight +2 x +bf16 +40 x 24 +3\.75 KiB/,
    ])
      expect(text).toMatch(expected);
    const all = await inspect(folder, "--all");
    expect(all).toMatch(/model\.layers\.1\.mlp\.up_proj\.weight +bf16 +40 x 24 +1\.88 KiB/);
    expectNarrow(all);
  });

  it("is JSON for programs", async () => {
    const folder = fixture("golden/families/qwen2");
    const config: unknown = JSON.parse(readFileSync(join(folder, "config.json"), "utf8"));
    const result = JSON.parse(await inspect(folder, "--json")) as Record<string, unknown>;
    expect(result).toMatchObject({
      format: "hugging-face",
      isSupported: true,
      config,
      parameters: countParameters(parseModelConfig(config)),
      tokenizer: null,
      license: { name: null },
    });
    expect(result["tensors"]).toContainEqual({
      name: "model.layers.1.self_attn.q_proj.bias",
      dtype: "f32",
      shape: [24],
      bytes: 96,
    });
  });

  it("that is not computed is shown with the reason", async () => {
    const folder = join(work, "foreign");
    cpSync(fixture("golden/families/qwen2"), folder, { recursive: true });
    const config = JSON.parse(readFileSync(join(folder, "config.json"), "utf8")) as Record<string, unknown>;
    writeFileSync(join(folder, "config.json"), JSON.stringify({ ...config, model_type: "bloom" }));
    const text = await inspect(folder);
    expect(text).toMatch(/not run +\[config\.json\] expected model_type to be one of/);
    expectNarrow(text);
  });
});

const others = [
  ...readdirSync(fixture("checkpoint/nemo")).map((name) => `checkpoint/nemo/${name}`),
  ...readdirSync(fixture("checkpoint/gguf")).flatMap((name) =>
    name.endsWith(".gguf") ? [`checkpoint/gguf/${name}`] : [],
  ),
  "checkpoint/torch/zip-2.pt",
  "checkpoint/torch/legacy.pt",
  "checkpoint/safetensors/all.safetensors",
];

it.each(others)("%s is shown", async (name) => {
  const text = await inspect(fixture(name));
  expect(text).toMatch(
    /format +(Hugging Face folder|NeMo or Megatron checkpoint|GGUF file|PyTorch file|safetensors file)/,
  );
  expect(text.split("\n").length).toBeGreaterThan(12);
  expectNarrow(text);
});

it.each([
  ["sentencepiece/bpe-llama.model", /tokenizer +SentencePiece, \d+ tokens; bos 1, eos 2/],
  ["tokenizer/tokenizer.json", /tokenizer +byte-level BPE, 1024 tokens/],
  ["golden/families/gpt2/config.json", /family +gpt2\n +shape +2 layers, width 24/],
])("a file beside the weights is shown by itself: %s", async (name, expected) => {
  const text = await inspect(fixture(name));
  expect(text).toMatch(expected);
  expectNarrow(text);
});

it.each(["README.md", "nowhere"])("what is no checkpoint is refused in a sentence: %s", async (name) => {
  writeFileSync(join(work, "README.md"), "# Nothing\n".repeat(60));
  const { code, stderr } = await runCli("inspect", join(work, name));
  expect(code).toBe(2);
  expect(stderr).toMatch(/^error: \[(checkpoint|model)\] expected/);
});
