/** `nautilus convert` as a user runs it: formats there and back bit for bit, what it refuses, and what it leaves behind then. */
import { spawnSync } from "node:child_process";
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { runConversion } from "../../src/app/runs/convert/job.ts";
import { decodeValues, NautilusError, roundTo } from "../../src/base/index.ts";
import { openCheckpoint } from "../../src/checkpoint/index.ts";
import { openDevice } from "../../src/device/index.ts";
import { loadCheckpointModel, parseModelConfig, saveModelFolder } from "../../src/models/index.ts";
import { Context } from "../../src/tensor/index.ts";
import {
  contents,
  fixture,
  nemotronVocabSize,
  smallConfig,
  writeModel,
  writeSparseModel,
} from "./model-folders.ts";
import { runCli, startCli } from "./run-cli.ts";

const work = mkdtempSync(join(tmpdir(), "nautilus-convert-"));
const at = (...parts: string[]): string => join(work, ...parts);
afterAll(() => rmSync(work, { recursive: true }));
beforeAll(() => writeModel(at("nemotron"), smallConfig("nemotron-tiny"), { dtype: "bf16" }));

async function convert(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await runCli("convert", ...args);
  expect(code, stderr).toBe(0);
  return stdout;
}

const json = (path: string): Record<string, unknown> =>
  JSON.parse(readFileSync(path, "utf8")) as Record<string, unknown>;

/** Through the decoder: what Nautilus would train on and save again. */
async function throughDecoder(from: string, to: string): Promise<void> {
  using device = await openDevice({ kind: "reference" });
  using checkpoint = await openCheckpoint(from);
  using decoder = loadCheckpointModel(new Context(device), checkpoint, "bf16");
  saveModelFolder(decoder, to);
}

describe("there and back", () => {
  it.each(["nemotron-tiny", "llama-3.1-8b", "mistral-7b-v0.3", "qwen2.5-0.5b", "gpt2-tiny"])(
    "%s: Hugging Face, Nautilus, .nemo, Nautilus, Hugging Face give the same bits",
    async (preset) => {
      const folder = at(`round-${preset}`);
      const start = join(folder, "start");
      await writeModel(start, smallConfig(preset), { dtype: "bf16" });
      await throughDecoder(start, join(folder, "loaded"));
      copyFileSync(join(start, "tokenizer.model"), join(folder, "loaded", "tokenizer.model"));
      await convert(join(folder, "loaded"), join(folder, "model.nemo"), "--verify");
      await throughDecoder(join(folder, "model.nemo"), join(folder, "again"));
      await convert(join(folder, "model.nemo"), join(folder, "end"), "--verify");
      const expected = await contents(start);
      expect(expected.size).toBeGreaterThan(15);
      expect(await contents(join(folder, "again"))).toEqual(expected);
      expect(await contents(join(folder, "end"))).toEqual(expected);
      expect(readFileSync(join(folder, "end", "tokenizer.model"))).toEqual(
        readFileSync(join(start, "tokenizer.model")),
      );
      const [{ family: _first, ...before }, { family: _second, ...after }] = ["start", "end"].map((name) =>
        parseModelConfig(json(join(folder, name, "config.json"))),
      );
      // The tokenizer's ids take the place of what a .nemo does not say.
      expect({ ...after, bosId: 0, eosId: 0, padId: 0 }).toEqual({ ...before, bosId: 0, eosId: 0, padId: 0 });
    },
  );

  it("NeMo's own GPT gives the tensors that transformers has", async () => {
    const expected = await contents(fixture("golden/families/gpt2"));
    expect(await contents(fixture("golden/gpt2.nemo"))).toEqual(expected);
    await convert(fixture("golden/gpt2.nemo"), at("gpt2"), "--verify");
    expect(await contents(at("gpt2"))).toEqual(expected);
    await convert(at("gpt2"), at("gpt2.nemo"), "--verify");
    expect(await contents(at("gpt2.nemo"))).toEqual(expected);
    const [written, theirs] = [at("gpt2"), fixture("golden/families/gpt2")].map((folder) =>
      parseModelConfig(json(join(folder, "config.json"))),
    );
    expect({ ...written, bosId: 0, eosId: 0 }).toEqual({ ...theirs, bosId: 0, eosId: 0 });
  });

  it("says what it wrote, as JSON too", async () => {
    const stdout = await convert(at("nemotron"), at("as-json"), "--json", "--verify");
    expect(JSON.parse(stdout)).toMatchObject({
      format: "hf",
      family: "nemotron",
      dtype: "bf16",
      numTensors: 24,
      isVerified: true,
    });
  });

  it("keeps the vocabulary that the configuration has, not the tokenizer's", async () => {
    await writeModel(at("padded"), smallConfig("nemotron-tiny", { vocabSize: 1024 }));
    await convert(at("padded"), at("padded.nemo"));
    await convert(at("padded.nemo"), at("padded-again"));
    expect(await contents(at("padded-again"))).toEqual(await contents(at("padded")));
  });
});

describe("the folder", () => {
  it("has what transformers looks for, in old and new spellings, and a card with license and base model", async () => {
    await convert(at("nemotron"), at("folder"), "--license", "apache-2.0", "--base-model", "org/base");
    expect(readdirSync(at("folder")).toSorted()).toEqual([
      "README.md",
      "config.json",
      "generation_config.json",
      "model.safetensors",
      "tokenizer.model",
      "tokenizer_config.json",
    ]);
    const config = json(at("folder", "config.json"));
    expect(config).toMatchObject({
      architectures: ["NemotronForCausalLM"],
      rope_theta: 10000,
      partial_rotary_factor: 0.5,
      rope_parameters: { rope_type: "default", rope_theta: 10000, partial_rotary_factor: 0.5 },
      torch_dtype: "bfloat16",
      dtype: "bfloat16",
    });
    const card = readFileSync(at("folder", "README.md"), "utf8");
    expect(card).toContain("license: apache-2.0\n");
    expect(card).toContain("base_model: org/base\n");
    expect(json(at("folder", "tokenizer_config.json"))).toMatchObject({ tokenizer_class: "LlamaTokenizer" });
  });

  it("passes the card of the source on, and warns where there is no license", async () => {
    cpSync(at("nemotron"), at("licensed"), { recursive: true });
    const front =
      "license: other\nlicense_name: some-terms\nlicense_link: https://example.org/terms\nlanguage: [en]\n";
    writeFileSync(at("licensed", "README.md"), `---\n${front}---\n# A model\n\nIts story.\n`);
    writeFileSync(at("licensed", "LICENSE"), "terms");
    const { stderr } = await runCli("convert", at("licensed"), at("licensed.nemo"));
    expect(stderr).not.toContain("names no license");
    await convert(at("licensed.nemo"), at("licensed-again"));
    const card = readFileSync(at("licensed-again", "README.md"), "utf8");
    for (const line of ["license_name: some-terms", "license_link: https://example.org/terms", "Its story."])
      expect(card).toContain(line);
    expect(readFileSync(at("licensed-again", "LICENSE"), "utf8")).toBe("terms");
    const plain = await runCli("convert", at("nemotron"), at("unlicensed"));
    expect(plain.stderr).toContain("names no license");
  });

  it("is cut into shards, and cast by rounding to nearest", async () => {
    await writeModel(at("wide"), smallConfig("llama-tiny"));
    await convert(at("wide"), at("cast"), "--dtype", "bf16", "--shard-size", "20KB", "--verify");
    const shards = readdirSync(at("cast")).filter((name) => name.endsWith(".safetensors"));
    expect(shards.length).toBeGreaterThan(2);
    using before = await openCheckpoint(at("wide"));
    using after = await openCheckpoint(at("cast"));
    for (const name of before.weights.names()) {
      const exact = decodeValues("f32", before.weights.read(name));
      const rounded = decodeValues("bf16", after.weights.read(name));
      expect(rounded, name).toEqual(exact.map((value) => roundTo("bf16", value)));
    }
  });

  it("comes from GGUF, and from PyTorch files under the names of a model without head", async () => {
    await convert(fixture("checkpoint/gguf/nemotron.gguf"), at("from-gguf"), "--verify");
    expect(existsSync(at("from-gguf", "config.json"))).toBe(true);
    await convert(fixture("golden/gpt2-first"), at("from-torch"));
    expect(await contents(at("from-torch"))).toEqual(await contents(fixture("golden/families/gpt2")));
  });
});

const plainRequest = {
  format: "hf",
  dtype: undefined,
  maxShardBytes: undefined,
  license: "mit",
  baseModel: undefined,
  verifies: false,
  isForced: false,
} as const;

/** Nothing at the target and nothing half-written beside it. */
function expectNothing(name: string): void {
  expect(readdirSync(work).filter((file) => file.startsWith(name))).toEqual([]);
}

async function expectRefusal(args: readonly string[], message: RegExp): Promise<void> {
  const { code, stderr } = await runCli("convert", ...args);
  expect(stderr).toMatch(message);
  expect(code).toBe(2);
}

describe("what is refused", () => {
  it("a target that is there, unless it is to be replaced", async () => {
    mkdirSync(at("there"));
    writeFileSync(at("there", "mine.txt"), "mine");
    await expectRefusal(
      [at("nemotron"), at("there")],
      /expected nothing at .*there, got a folder with files.*--force/,
    );
    expect(readFileSync(at("there", "mine.txt"), "utf8")).toBe("mine");
    await convert(at("nemotron"), at("there"), "--force");
    expect(existsSync(at("there", "mine.txt"))).toBe(false);
    expect(existsSync(at("there", "config.json"))).toBe(true);
    expect(readdirSync(work).filter((name) => name.startsWith("there"))).toEqual(["there"]);
  });

  it("the source as the target", async () => {
    await expectRefusal(
      [at("nemotron"), at("nemotron"), "--force"],
      /expected another place than the source/,
    );
    expect(existsSync(at("nemotron", "config.json"))).toBe(true);
  });

  it.each([
    [
      "a missing tensor",
      (folder: string) => removeTensor(folder, "model.norm.bias"),
      /expected the tensor model\.norm\.bias in/,
    ],
    [
      "a foreign tensor",
      (folder: string) => renameTensor(folder, "model.norm.bias", "model.norm.gain"),
      /got model\.norm\.gain, which a nemotron model does not have/,
    ],
    [
      "a wrong shape",
      (folder: string) => editConfig(folder, { intermediate_size: 41 }),
      /expected model\.layers\.0\.mlp\.up_proj\.weight of shape \(41, 24\) in .*, got \(40, 24\)/,
    ],
    [
      "a truncated file",
      (folder: string) => truncateSync(join(folder, "model.safetensors"), 9000),
      /expected a whole safetensors file at .*, got/,
    ],
    [
      "a tokenizer with more tokens than the model",
      (folder: string) => editConfig(folder, { vocab_size: nemotronVocabSize - 1 }),
      /expected a tokenizer of at most the 899 tokens of .*, got one of 900/,
    ],
    [
      "an unknown family",
      (folder: string) => editConfig(folder, { model_type: "bloom" }),
      /expected model_type to be one of nemotron, llama, mistral, qwen2, gpt2, got 'bloom'/,
    ],
    [
      "a feature that is not computed",
      (folder: string) => editConfig(folder, { quantization_config: { bits: 4 } }),
      /quantization_config: expected a model without it/,
    ],
  ])("%s, leaving nothing behind", async (name, damage, message) => {
    const folder = at("damaged");
    rmSync(folder, { recursive: true, force: true });
    cpSync(at("nemotron"), folder, { recursive: true });
    damage(folder);
    // In this process: that a refusal is one sentence with exit code 2 is seen by the others.
    const conversion = runConversion(
      { ...plainRequest, source: folder, target: at(`refused-${name}`) },
      () => {},
    );
    await expect(conversion).rejects.toThrow(message);
    await expect(conversion).rejects.toBeInstanceOf(NautilusError);
    expectNothing("refused");
  });

  it("two tensors of one name", async () => {
    const folder = at("doubled");
    cpSync(at("nemotron"), folder, { recursive: true });
    renameTensor(folder, "model.norm.bias", "model.norm.weight");
    await expectRefusal([folder, at("refused")], /two tensors named 'model\.norm\.weight'/);
    expectNothing("refused");
  });

  it("Ctrl-C, at once, with the old target in place and nothing beside it", async () => {
    const vocabSize = 300_000;
    writeSparseModel(at("large"), vocabSize);
    await convert(at("nemotron"), at("stopped"));
    const before = await contents(at("stopped"));
    const { child, result } = startCli(["convert", at("large"), at("stopped"), "--force"]);
    await new Promise<void>((resolve) => child.stderr?.once("data", () => resolve()));
    child.kill("SIGINT");
    const { code, stderr } = await result;
    expect(stderr).toContain("stopping; nothing is written");
    expect(code).toBe(130);
    expect(await contents(at("stopped"))).toEqual(before);
    expect(readdirSync(work).filter((name) => name.startsWith("stopped"))).toEqual(["stopped"]);
  });

  it("a write that the disk refuses, naming the file, with the old target in place", async () => {
    await convert(at("nemotron"), at("limited"));
    const before = await contents(at("limited"));
    const launcher = fileURLToPath(new URL("../../bin/nautilus.js", import.meta.url));
    const command = `ulimit -f 16; exec "$0" "$@"`;
    const args = [launcher, "convert", at("nemotron"), at("limited"), "--force"];
    const { status, stderr } = spawnSync("bash", ["-c", command, process.execPath, ...args], {
      encoding: "utf8",
    });
    expect(stderr).toMatch(
      /expected a writable file at .*model\.safetensors, got a limit on the size of files/,
    );
    expect(status).toBe(2);
    expect(await contents(at("limited"))).toEqual(before);
    expect(readdirSync(work).filter((name) => name.startsWith("limited"))).toEqual(["limited"]);
  });
});

/** Changes the header of the only weights file, which stays as long as it was. */
function editHeader(folder: string, change: (text: string) => string): void {
  const path = join(folder, "model.safetensors");
  const bytes = readFileSync(path);
  const length = Number(bytes.readBigUInt64LE());
  const text = change(
    bytes
      .subarray(8, 8 + length)
      .toString("utf8")
      .trimEnd(),
  );
  const header = Buffer.from(text.padEnd(Math.ceil(text.length / 8) * 8));
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(BigInt(header.byteLength));
  writeFileSync(path, Buffer.concat([prefix, header, bytes.subarray(8 + length)]));
  expect(statSync(path).size).toBeGreaterThan(0);
}

function renameTensor(folder: string, from: string, to: string): void {
  editHeader(folder, (text) => text.replace(`"${from}"`, `"${to}"`));
}

/** Its bytes stay, under a name that readers pass over. */
function removeTensor(folder: string, name: string): void {
  renameTensor(folder, name, "model.rotary_emb.inv_freq");
}

function editConfig(folder: string, changes: Record<string, unknown>): void {
  const path = join(folder, "config.json");
  writeFileSync(path, JSON.stringify({ ...json(path), ...changes }));
}
