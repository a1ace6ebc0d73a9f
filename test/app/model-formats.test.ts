/** What `--model` takes: checkpoints of every format give the same model, with their own tokenizers, and run from the command line. */
import { cpSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openModel } from "../../src/app/runs/openModel.ts";
import { decodeValues } from "../../src/base/index.ts";
import { openSafetensors } from "../../src/checkpoint/index.ts";
import { openDevice } from "../../src/device/index.ts";
import { loadModelFolder } from "../../src/models/index.ts";
import type { Decoder } from "../../src/models/index.ts";
import { Context } from "../../src/tensor/index.ts";
import { loadChatTemplates } from "../../src/text/index.ts";
import { fixture, smallConfig, writeModel, writeSparseModel } from "./model-folders.ts";
import { runCli } from "./run-cli.ts";

const work = mkdtempSync(join(tmpdir(), "nautilus-formats-"));
afterAll(() => rmSync(work, { recursive: true }));

function logits(context: Context, decoder: Decoder, tokens: Float64Array): Float64Array {
  const length = tokens.length;
  return context.scope(() => {
    const hidden = decoder.forward(context, {
      tokens: context.tensor(tokens, [length], "i32"),
      positions: context.tensor(
        tokens.map((_, position) => position),
        [length],
        "i32",
      ),
      numSequences: 1,
      sequenceLength: length,
    });
    return decoder.logits(context, hidden).toArray();
  });
}

function expectNear(got: Float64Array, expected: Float64Array): void {
  const scale = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const worst = expected.reduce((most, value, i) => Math.max(most, Math.abs(got[i] - value)), 0);
  expect(worst / scale).toBeLessThan(2e-5);
}

describe.each([
  ["llama2", "sentencepiece"],
  ["llama3", "tokenizer-json/llama3"],
  ["qwen2", "tokenizer-json/qwen"],
])("the GGUF of %s", (name, tokenizerFixture) => {
  const path = fixture(`gguf-models/${name}.gguf`);

  it("gives transformers' logits, and the ids of the tokenizer it was made with", async () => {
    using device = await openDevice({ kind: "cpu" });
    const liveBytes = device.memory().liveBytes;
    const context = new Context(device);
    {
      using model = await openModel(context, path);
      using golden = openSafetensors(fixture(`gguf-models/${name}.safetensors`));
      const [tokens, expected] = [
        decodeValues("i32", golden.read("tokens")),
        decodeValues("f32", golden.read("logits")),
      ];
      expectNear(logits(context, model.decoder, tokens).slice(-expected.length), expected);
      for (const [bytes, ids] of expectedIds(tokenizerFixture)) {
        expect([...model.tokenizer.encodeBytes(bytes)], JSON.stringify(bytes.toString())).toEqual(ids);
      }
      const hasTemplate = loadChatTemplates(model.folder).names.length > 0;
      expect(hasTemplate).toBe(name !== "llama2");
    }
    expect(device.memory().liveBytes).toBe(liveBytes);
  });

  it("is converted and runs from the command line", async () => {
    const folder = join(work, name);
    const converted = await runCli("convert", path, folder, "--verify");
    expect(converted.code, converted.stderr).toBe(0);
    const [first, second] = [await generate(path), await generate(folder)];
    expect(first).toEqual(second);
  });
});

/** Texts and their ids by the C++ library or the Rust library, without special tokens. */
function expectedIds(name: string): [Buffer, number[]][] {
  const read = (file: string): unknown => JSON.parse(readFileSync(fixture(file), "utf8"));
  if (name === "sentencepiece") {
    const texts = read("sentencepiece/texts.json") as string[];
    const { ids } = read("sentencepiece/bpe-llama.json") as { ids: number[][] };
    return texts.map((text, i) => [Buffer.from(text, "base64"), ids[i]]);
  }
  const { texts, rows } = read(`${name}/expected.json`) as { texts: string[]; rows: [number[]][] };
  return texts.map((text, i) => [Buffer.from(text), rows[i][0]]);
}

async function generate(model: string, ...more: string[]): Promise<unknown> {
  const args = [
    "--prompt",
    "the sea",
    "--max-tokens",
    "12",
    "--temperature",
    "0",
    "--json",
    "--device",
    "cpu",
  ];
  const { code, stdout, stderr } = await runCli("generate", "--model", model, ...args, ...more);
  expect(code, stderr).toBe(0);
  return (JSON.parse(stdout) as { results: unknown }).results;
}

it("the first layout of GPT-2 gives transformers' logits", async () => {
  using device = await openDevice({ kind: "reference" });
  const context = new Context(device);
  using golden = openSafetensors(fixture("golden/families/gpt2/golden.safetensors"));
  using decoder = loadModelFolder(context, fixture("golden/gpt2-first"), "f32");
  const [, length] = golden.info("tokens").shape;
  const tokens = decodeValues("i32", golden.read("tokens")).slice(0, length);
  const expected = decodeValues("f32", golden.read("logits")).slice(0, length * decoder.config.vocabSize);
  expectNear(logits(context, decoder, tokens), expected);
});

it("a model that the machine has no room for is refused before it is read", async () => {
  writeSparseModel(join(work, "huge"), 200_000_000);
  const args = ["generate", "--model", join(work, "huge"), "--prompt", "x", "--device", "cpu", "--no-mmap"];
  const { code, stderr } = await runCli(...args);
  expect(stderr).toMatch(/expected 1\.\d\d TiB of memory for the weights of .*huge in bf16, got \d/);
  expect(code).toBe(2);
});

describe("a .nemo", () => {
  beforeAll(async () => {
    await writeModel(join(work, "folder"), smallConfig("nemotron-tiny"), { dtype: "bf16" });
    const { code, stderr } = await runCli("convert", join(work, "folder"), join(work, "model.nemo"));
    expect(code, stderr).toBe(0);
  });

  it("runs as the folder it was made from, with the tokenizer inside", async () => {
    expect(await generate(join(work, "model.nemo"))).toEqual(await generate(join(work, "folder")));
  });

  it("without a tokenizer asks for one", async () => {
    cpSync(join(work, "folder"), join(work, "bare"), { recursive: true });
    rmSync(join(work, "bare", "tokenizer.model"));
    const { code } = await runCli("convert", join(work, "bare"), join(work, "bare.nemo"));
    expect(code).toBe(0);
    const args = ["generate", "--model", join(work, "bare.nemo"), "--prompt", "x", "--device", "cpu"];
    const refused = await runCli(...args);
    expect(refused.code).toBe(2);
    expect(refused.stderr).toMatch(
      /expected a tokenizer in .*bare\.nemo, got none \(name one with --tokenizer\)/,
    );
    const tokenizer = join(work, "folder", "tokenizer.model");
    expect(await generate(join(work, "bare.nemo"), "--tokenizer", tokenizer)).toEqual(
      await generate(join(work, "folder")),
    );
  });
});
