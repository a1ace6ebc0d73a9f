/**
 * The mistakes that users make, each through the command line: one clear sentence that names the file or field, exit code 2, no stack,
 * and nothing left behind.
 */
import { spawnSync } from "node:child_process";
import {
  chmodSync,
  cpSync,
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
import { gzipSync, zstdCompressSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { listCheckpoints } from "../../src/train/index.ts";
import { startCli } from "./run-cli.ts";
import type { CliResult } from "./run-cli.ts";
import { tinyRecipe } from "./tinyRecipe.ts";

const folder = mkdtempSync(join(tmpdir(), "nautilus-mistakes-"));
const at = (...parts: string[]): string => join(folder, ...parts);
const run = (args: readonly string[]): Promise<CliResult> => startCli(args, { cwd: folder, env }).result;
const env = { HF_HUB_CACHE: at("hub"), HF_ENDPOINT: "http://127.0.0.1:9", HF_TOKEN: "" };

const recipe = {
  ...tinyRecipe,
  run: "new",
  totalTokens: 1024,
  optim: { lr: 0.01, minLr: 0.001, warmupTokens: 256 },
};

beforeAll(async () => {
  mkdirSync(at("texts"));
  const words = "sea shell spiral chamber deep light slow nautilus grows turns".split(" ");
  const text = Array.from({ length: 2000 }, (_, i) => words[(i * i + 3 * i) % 7]).join(" ");
  for (const name of ["a.txt", "b.txt", "c.txt"]) writeFileSync(at("texts", name), `${text}\n`);
  writeFileSync(at("recipe.json"), JSON.stringify(recipe));
  const trained = await run(["train", "recipe.json", "--set", "run=whole"]);
  expect(trained.code, trained.stderr).toBe(0);
  makeBrokenFiles(listCheckpoints(at("whole")).at(-1)?.path ?? "");
});
afterAll(() => {
  chmodSync(at("read-only"), 0o755);
  rmSync(folder, { recursive: true });
});

/** Every file that the cases below point at. */
function makeBrokenFiles(checkpoint: string): void {
  const lines = Array.from({ length: 400 }, (_, i) => `{"text":"line ${i} of the sea"}\n`).join("");
  const write = (name: string, content: string | Buffer): void => writeFileSync(at(name), content);
  write("good.jsonl", lines);
  write("empty.jsonl", "");
  write("broken.jsonl", `${lines}{"text": "cut`);
  write("keyless.jsonl", '{"body":"x"}\n');
  write("number.jsonl", '{"text":5}\n');
  write(
    "latin1.jsonl",
    Buffer.concat([Buffer.from('{"text":"caf'), Buffer.from([0xe9]), Buffer.from('"}\n')]),
  );
  write("cut.jsonl.gz", gzipSync(Buffer.from(lines.repeat(50))).subarray(0, 300));
  write("no.jsonl.gz", "this is no gzip");
  write("cut.jsonl.zst", zstdCompressSync(Buffer.from(lines.repeat(50))).subarray(0, 100));
  write("no.jsonl.zst", "this is no zstd");
  write("empty.json", "");
  write("list.json", "[]");
  write("broken.json", '{"run": "x",');
  write("broken.yaml", "run: [x\n");
  write("throws.ts", 'throw new Error("a fault of the recipe");\n');
  write("syntax.ts", "export default {{\n");
  write("nodefault.ts", "export const x = 1;\n");
  write("a-file", "x");
  mkdirSync(at("empty-folder"));
  mkdirSync(at("read-only"));
  chmodSync(at("read-only"), 0o555);
  const model = join(checkpoint, "model");
  const broken = (name: string, change: (folder: string) => void): void => {
    cpSync(model, at(name), { recursive: true });
    change(at(name));
  };
  // Its bytes are on no disk, but whoever reads it whole needs memory for them.
  write("huge.json", "");
  truncateSync(at("huge.json"), 64 * 2 ** 30);
  mkdirSync(at("adapter"));
  write("adapter/adapter_config.json", "{}");
  mkdirSync(at("models"));
  cpSync(model, at("models", "inner"), { recursive: true });
  broken("cut-weights", (path) => truncateSync(join(path, "model.safetensors"), 500));
  broken("empty-weights", (path) => truncateSync(join(path, "model.safetensors"), 0));
  broken("no-weights", (path) => rmSync(join(path, "model.safetensors")));
  broken("no-tokenizer", (path) => rmSync(join(path, "tokenizer.json")));
  broken("broken-tokenizer", (path) => writeFileSync(join(path, "tokenizer.json"), "{"));
  broken("broken-config", (path) => writeFileSync(join(path, "config.json"), "{"));
  broken("other-family", (path) => writeFileSync(join(path, "config.json"), '{"model_type":"mamba"}'));
  broken("other-width", (path) => changeConfig(path, { hidden_size: 64 }));
  broken("absurd-width", (path) => changeConfig(path, { hidden_size: 1e15 }));
  broken("text-width", (path) => changeConfig(path, { hidden_size: "wide" }));
  write("tokenizer.json", readFileSync(join(model, "tokenizer.json")));
  const data = at("whole", "data", "train-0");
  write("pair.bin", readFileSync(`${data}.bin`));
  write("pair.idx", readFileSync(`${data}.idx`));
  write("cut.bin", readFileSync(`${data}.bin`).subarray(0, 10));
  write("cut.idx", readFileSync(`${data}.idx`));
  write("no-index.bin", readFileSync(`${data}.bin`));
  write("bad-index.bin", readFileSync(`${data}.bin`));
  write("bad-index.idx", "MMIDIDX\0\0 this is no index of token files");
}

function changeConfig(path: string, changes: Readonly<Record<string, unknown>>): void {
  const config = JSON.parse(readFileSync(join(path, "config.json"), "utf8")) as object;
  writeFileSync(join(path, "config.json"), JSON.stringify({ ...config, ...changes }));
}

/** Every file with its size, so that anything left behind shows. */
function inventory(): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map(({ parentPath, name }) => `${join(parentPath, name)} ${statSync(join(parentPath, name)).size}`)
    .sort();
}

const set = (change: string): string[] => ["train", "recipe.json", "--set", change];
const prepare = (file: string): string[] => [
  "data",
  "prepare",
  file,
  "--tokenizer",
  "tokenizer.json",
  "--output",
  "out",
];
const generate = (model: string): string[] => [
  "generate",
  "--model",
  model,
  "--prompt",
  "sea",
  "--device",
  "cpu",
];
const learn = (file: string, ...more: string[]): string[] => [
  "tokenizer",
  "train",
  file,
  "--output",
  "new-tokenizer",
  ...more,
];

const mistakes: [what: string, args: string[], says: RegExp][] = [
  ["no such command", ["trian"], /unknown command 'trian'/],
  ["no such option", ["train", "recipe.json", "--dryrun"], /unknown option '--dryrun'/],
  ["an argument too few", ["train"], /missing required argument 'recipe'/],
  ["an option without its value", ["generate", "--model"], /argument missing/],
  ["a required option left out", ["generate", "--prompt", "x"], /required option '--model/],
  [
    "a number that is none",
    [...generate("whole"), "--max-tokens", "ten"],
    /--max-tokens.*expected a whole number/,
  ],
  [
    "a negative temperature",
    [...generate("whole"), "--temperature", "-1"],
    /--temperature.*expected a number of at least 0/,
  ],
  ["a top-p above one", [...generate("whole"), "--top-p", "1.5"], /topP|top-p|top_p/],
  ["a precision that is none", [...generate("whole"), "--precision", "f12"], /--precision.*f12/],
  ["a device that is none", [...generate("whole"), "--device", "tpu"], /--device.*tpu/],
  ["no threads", [...generate("whole"), "--threads", "0"], /--threads.*at least 1/],
  ["no recipe", ["train", "nowhere.json"], /expected a recipe at nowhere\.json, got nothing there/],
  ["a folder as recipe", ["train", "texts"], /texts/],
  ["an empty recipe", ["train", "empty.json"], /empty\.json/],
  ["a recipe that is a list", ["train", "list.json"], /list\.json|expected object/],
  ["a recipe cut off", ["train", "broken.json"], /broken\.json/],
  ["a broken YAML recipe", ["train", "broken.yaml"], /broken\.yaml/],
  ["a recipe that throws", ["train", "throws.ts"], /throws\.ts.*a fault of the recipe/],
  ["a recipe with a syntax error", ["train", "syntax.ts"], /syntax\.ts/],
  ["a recipe without a default export", ["train", "nodefault.ts"], /nodefault\.ts/],
  ["an unknown recipe key", set("optim.lerningRate=1"), /'optim\.lerningRate'/],
  ["a misspelt recipe key", set("sequenceLenght=32"), /'sequenceLenght' \(did you mean 'sequenceLength'\?\)/],
  ["a setting without a value", set("optim.lr"), /--set.*optim\.lr/],
  ["a learning rate of text", set("optim.lr=fast"), /optim\.lr: expected number, got "fast"/],
  ["a negative batch", set("batchTokens=-256"), /batchTokens/],
  [
    "a batch of no whole sequences",
    set("batchTokens=100"),
    /batchTokens: expected a multiple of sequenceLength 32, got 100/,
  ],
  ["heads that do not divide", set("model.numKvHeads=3"), /numKvHeads|numHeads/],
  ["an absurd width", set("model.width=1e15"), /width 1000000000000000/],
  ["an absurd sequence", set("sequenceLength=1000000000000"), /sequenceLength|batchTokens/],
  ["more layers than memory", set("model.numLayers=50000000"), /numLayers|expected a run within/],
  [
    "a preset that is none",
    set("model.preset=nemotron-3-9b"),
    /'nemotron-3-9b' \(did you mean 'nemotron-3-8b'\?\)/,
  ],
  ["data that is not there", set('data.train=[{"source":{"kind":"tree","paths":"missing"}}]'), /missing/],
  [
    "data that is empty",
    set('data.train=[{"source":{"kind":"tree","paths":"empty-folder"}}]'),
    /empty-folder/,
  ],
  ["a split of nothing", set("data.split=0,0,0"), /split/],
  ["a run that is a file", set("run=a-file"), /a-file/],
  ["a run below a file", set("run=a-file/run"), /a-file/],
  ["a vocabulary smaller than bytes", set("tokenizer.vocabSize=100"), /vocabSize/],
  ["--no-resume on a run with checkpoints", [...set("run=whole"), "--no-resume"], /whole/],
  [
    "a run whose tokenizer has another size",
    [...set("run=whole"), "--set", "tokenizer.vocabSize=400"],
    /tokenizer\.vocabSize: expected 320, for which whole\/tokenizer\.json was made, got 400 \(.*another 'run', or remove/,
  ],
  ["no data file", prepare("missing.jsonl"), /missing\.jsonl, got nothing there/],
  ["an empty data file", prepare("empty.jsonl"), /empty\.jsonl/],
  ["JSON lines cut off", prepare("broken.jsonl"), /broken\.jsonl.*line 401|broken\.jsonl:401/],
  ["JSON lines without the field", prepare("keyless.jsonl"), /'text' in keyless\.jsonl line 1/],
  ["a field that is no text", prepare("number.jsonl"), /number\.jsonl.*text/],
  ["invalid UTF-8", prepare("latin1.jsonl"), /latin1\.jsonl.*UTF-8/],
  ["a truncated .gz", prepare("cut.jsonl.gz"), /cut\.jsonl\.gz/],
  ["a .gz that is none", prepare("no.jsonl.gz"), /no\.jsonl\.gz/],
  ["a truncated .zst", prepare("cut.jsonl.zst"), /cut\.jsonl\.zst/],
  ["a .zst that is none", prepare("no.jsonl.zst"), /no\.jsonl\.zst/],
  [
    "a tokenizer that is not there",
    ["data", "prepare", "good.jsonl", "--tokenizer", "none", "--output", "out"],
    /none/,
  ],
  [
    "a tokenizer that is data",
    ["data", "prepare", "good.jsonl", "--tokenizer", "list.json", "--output", "out"],
    /list\.json/,
  ],
  ["output below a file", [...prepare("good.jsonl").slice(0, -1), "a-file/out"], /a-file/],
  ["token files that are not there", ["data", "inspect", "nothing"], /nothing\.(idx|bin)/],
  ["token files without an index", ["data", "inspect", "no-index"], /no-index\.idx/],
  ["token files cut off", ["data", "inspect", "cut"], /cut\.bin/],
  ["an index that is none", ["data", "inspect", "bad-index"], /bad-index\.idx/],
  ["text to learn that is not there", learn("missing.txt"), /missing\.txt/],
  ["text to learn that is empty", learn("empty.jsonl"), /empty\.jsonl|expected .*text/],
  [
    "a vocabulary that is no number",
    learn("texts", "--vocab-size", "many"),
    /--vocab-size.*expected a whole number/,
  ],
  ["a vocabulary larger than the text", learn("texts", "--vocab-size", "1000000000"), /vocab/i],
  ["no model", generate("nowhere"), /expected a run, a checkpoint or a model at nowhere, got nothing there/],
  ["a model that was not pulled", generate("sea/shell"), /nautilus pull sea\/shell/],
  ["a folder that is no model", generate("texts"), /texts/],
  ["a file that is no model", generate("a-file"), /a-file/],
  ["weights cut off", generate("cut-weights"), /cut-weights/],
  ["weights of no bytes", generate("empty-weights"), /empty-weights/],
  ["no weights", generate("no-weights"), /no-weights/],
  ["no tokenizer", generate("no-tokenizer"), /no-tokenizer/],
  ["a broken tokenizer", generate("broken-tokenizer"), /broken-tokenizer/],
  ["a broken configuration", generate("broken-config"), /broken-config/],
  ["a family we do not have", generate("other-family"), /mamba/],
  ["weights of another width", generate("other-width"), /\[(64|\d+), ?\d+\]|64/],
  ["a width beyond any machine", generate("absurd-width"), /width 1000000000000000/],
  ["a width of text", generate("text-width"), /hidden_size/],
  ["a model's name that is none", ["model", "info", "gpt-5"], /'gpt-5'/],
  ["info of a broken configuration", ["model", "info", "broken-config"], /broken-config/],
  ["inspecting nothing", ["inspect", "nowhere"], /nowhere/],
  ["inspecting a file too large to read whole", ["inspect", "huge.json"], /huge\.json/],
  ["a vocabulary too large to be one", [...generate("whole"), "--tokenizer", "huge.json"], /at most 512/],
  ["an adapter for a model", generate("adapter"), /got an adapter .*--adapter/],
  ["a folder of models", generate("models"), /did you mean models\/inner\?/],
  ["converting nothing", ["convert", "nowhere", "converted"], /nowhere/],
  ["converting weights cut off", ["convert", "cut-weights", "converted"], /cut-weights/],
  ["converting over a file", ["convert", "whole", "a-file"], /a-file/],
  ["a pull of no name", ["pull", "../x"], /expected a model's name, got '\.\.\/x'/],
  ["a hub that is not there", ["pull", "sea/shell"], /expected an answer from http:\/\/127\.0\.0\.1:9/],
];

describe("one sentence, exit code 2, nothing left behind", () => {
  it.each(mistakes)("%s", async (_, args, says) => {
    const before = inventory();
    const { code, stderr, stdout } = await run(args);
    expect(stderr).toMatch(says);
    expect(stderr).not.toMatch(/\n\s+at |node:internal|this is a bug/);
    expect(stderr.split("\n").filter((line) => line.startsWith("error:"))).toHaveLength(1);
    expect(stdout).toBe("");
    expect(code).toBe(2);
    expect(inventory()).toEqual(before);
  });

  it("--debug shows the stack", async () => {
    const { code, stderr } = await run(["--debug", ...generate("nowhere")]);
    expect(stderr).toMatch(/\n\s+at /);
    expect(code).toBe(2);
  });
});

const isRoot = process.getuid?.() === 0;

describe("a folder that may not be written", () => {
  it.for([
    ["train", set("run=read-only/run")],
    ["tokenizer train", ["tokenizer", "train", "texts", "--output", "read-only/t"]],
    ["data prepare", [...prepare("good.jsonl").slice(0, -1), "read-only/out"]],
    ["convert", ["convert", "whole", "read-only/converted"]],
  ] satisfies [string, string[]][])("%s", async ([, args], context) => {
    // Nothing is closed to root: there a read-only mount stands for the folder.
    const isMounted =
      isRoot && spawnSync("mount", ["-t", "tmpfs", "-o", "ro", "tmpfs", at("read-only")]).status === 0;
    if (isRoot && !isMounted) return context.skip("this user may not mount, and nothing is closed to it");
    try {
      const { code, stderr } = await run(args);
      expect(stderr).toMatch(/read-only.*, got (a read-only file system|permission denied)/);
      expect(code).toBe(2);
      expect(readdirSync(at("read-only"))).toEqual([]);
    } finally {
      if (isMounted) spawnSync("umount", [at("read-only")]);
    }
  });
});

describe("a full disk", () => {
  it.for([
    ["data prepare", [...prepare("large.jsonl").slice(0, -1), "disk/out"], /disk\/out\.(bin|idx)/],
    ["tokenizer train", ["tokenizer", "train", "texts", "--output", "disk/t"], /disk\/t/],
    ["convert", ["convert", "whole", "disk/converted"], /expected .* of room at .*disk, got 8\.00 KiB/],
    ["train", set("run=disk/run"), /disk\/run/],
  ] satisfies [string, string[], RegExp][])(
    "%s names the file it could not write",
    async ([, args, says], context) => {
      mkdirSync(at("disk"), { recursive: true });
      writeFileSync(at("large.jsonl"), readFileSync(at("good.jsonl"), "utf8").repeat(100));
      const isMounted =
        spawnSync("mount", ["-t", "tmpfs", "-o", "size=8k", "tmpfs", at("disk")]).status === 0;
      if (!isMounted) return context.skip("this user may not mount a small disk");
      try {
        const { code, stderr } = await run(args);
        expect(stderr).toMatch(
          /got a full disk \(free some space and run the same command again\)|of room at/,
        );
        expect(stderr).toMatch(says);
        expect(stderr).not.toMatch(/\.part\b/);
        expect(code).toBe(2);
        const left = readdirSync(at("disk"), { recursive: true }).map(String);
        expect(left.filter((name) => name.includes(".part"))).toEqual([]);
      } finally {
        spawnSync("umount", [at("disk")]);
      }
    },
  );
});
