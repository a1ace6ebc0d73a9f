/** `nautilus tune` and `nautilus adapter` as users run them: killed and gone on with bit for bit, merged, refused. */
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { adapterIdentity } from "../../src/app/runs/adapter/adapter.ts";
import { openDevice } from "../../src/device/index.ts";
import { saveModelFolder } from "../../src/models/index.ts";
import { Context } from "../../src/tensor/index.ts";
import { loadTokenizer } from "../../src/text/index.ts";
import { runCli, startCli } from "./run-cli.ts";
import { tinyConfig } from "../tiny-model.ts";
import { Decoder } from "../../src/models/index.ts";

let folder: string;
let model: string;
const fixture = (name: string): string =>
  fileURLToPath(new URL(`../fixtures/adapters/${name}`, import.meta.url));
const at = (...parts: string[]): string => join(folder, ...parts);

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "nautilus-tune-"));
  model = at("base");
  const text = at("text.txt");
  writeFileSync(text, "The quick brown fox jumps over the lazy dog. ".repeat(200));
  const tokenizer = await runCli(
    "tokenizer",
    "train",
    text,
    "--output",
    at("tokenizer"),
    "--vocab-size",
    "320",
  );
  expect(tokenizer.stderr + String(tokenizer.code)).toMatch(/0$/);
  using device = await openDevice({ kind: "cpu" });
  using decoder = new Decoder(new Context(device), { ...tinyConfig, vocabSize: 320 }, { dtype: "f32" });
  decoder.parameters.initialise(3);
  const names = readdirSync(at("tokenizer"));
  saveModelFolder(decoder, model, Object.fromEntries(names.map((name) => [name, at("tokenizer", name)])));
  const rows = Array.from({ length: 24 }, (_, i) => ({
    input: `fox ${i % 5}`,
    output: `dog ${(i * 7) % 5} over`,
  }));
  writeFileSync(at("data.jsonl"), rows.map((row) => JSON.stringify(row)).join("\n"));
});
afterAll(() => rmSync(folder, { recursive: true }));

const tune = (run: string, ...more: string[]): string[] =>
  [
    ["tune", "--model", model, "--data", at("data.jsonl"), "--run", at(run), "--device", "cpu"],
    ["--set", 'method={"method":"lora","rank":4,"dropout":0.2}', "--set", "maxLength=48"],
    ["--set", "batchSize=2", "--set", "optim.lr=0.01", "--set", "evaluation.everySteps=10"],
    ["--set", "checkpoint.everySteps=5", ...more],
  ].flat();
const weights = (run: string): Buffer => readFileSync(at(run, "adapter", "adapter_model.safetensors"));

/** The base of the adapters' fixtures with a tokenizer of single characters: 64 tokens are few. */
function characterModel(): string {
  const target = at("characters");
  cpSync(fixture("base"), target, { recursive: true });
  const characters = [
    "<unk>",
    "<s>",
    "</s>",
    "Ġ",
    ...Array.from({ length: 60 }, (_, i) => String.fromCharCode("A".charCodeAt(0) + i)),
  ];
  const vocab = Object.fromEntries(characters.map((text, id) => [text, id]));
  const special = (id: number) => ({
    id,
    content: characters[id],
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  });
  const tokenizer = {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: [0, 1, 2].map(special),
    normalizer: null,
    pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
    post_processor: null,
    decoder: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      vocab,
      merges: [],
    },
  };
  writeFileSync(join(target, "tokenizer.json"), JSON.stringify(tokenizer));
  return target;
}

describe("generate", () => {
  it("says that the context's end was reached before --max-tokens, and only then", async () => {
    const generate = (maxTokens: string, ...more: string[]) =>
      runCli(
        "generate",
        "--model",
        model,
        "--prompt",
        "fox",
        "--max-tokens",
        maxTokens,
        "--min-tokens",
        maxTokens,
        "--device",
        "cpu",
        "--json",
        ...more,
      );
    const long = await generate("200");
    expect(long.code, long.stderr).toBe(0);
    const [{ tokens }] = (JSON.parse(long.stdout) as { results: { tokens: number[] }[] }).results;
    expect(tokens.length).toBeLessThan(64);
    expect(long.stderr).toContain(
      `The end of the model's context (64 tokens with the prompt) was reached: ${tokens.length} tokens instead of --max-tokens 200`,
    );
    expect((await generate("200", "--count", "2")).stderr).toContain("2 texts shorter than --max-tokens 200");
    expect((await generate("5")).stderr).not.toContain("context");
  });
});

describe("nautilus tune", () => {
  it("is killed, goes on, and ends with the very adapter of a run that was not", async () => {
    const whole = await runCli(...tune("whole", "--set", "steps=40"));
    expect(whole.stderr).toMatch(/the adapter is in/);
    const killed = startCli(tune("killed", "--set", "steps=40"));
    const checkpoints = at("killed", "checkpoints");
    const isUnderWay = (): boolean =>
      existsSync(checkpoints) && readdirSync(checkpoints).some((name) => /^step-\d+$/.test(name));
    for (const endMs = Date.now() + 30_000; !isUnderWay() && Date.now() < endMs;)
      await new Promise((resolve) => setTimeout(resolve, 5));
    killed.child.kill("SIGKILL");
    await killed.result;
    const resumed = await runCli(...tune("killed", "--set", "steps=40"));
    expect(resumed.stderr).toMatch(/going on from|the adapter is in/);
    expect(weights("killed").equals(weights("whole"))).toBe(true);

    // One that a full disk ended before its first checkpoint: it leaves measurements and a best adapter of its own.
    mkdirSync(at("early-end", "best", "step-20"), { recursive: true });
    writeFileSync(
      at("early-end", "metrics.jsonl"),
      '{"kind":"validation","step":20,"tokens":9,"loss":0.001}\n',
    );
    const begun = await runCli(...tune("early-end", "--set", "steps=40"));
    expect(begun.code, begun.stderr).toBe(0);
    expect(weights("early-end").equals(weights("whole"))).toBe(true);
    expect(readdirSync(at("early-end", "best"))).toEqual(readdirSync(at("whole", "best")));
    writeFileSync(at("early-end", "notes.txt"), "mine");
    rmSync(at("early-end", "checkpoints"), { recursive: true });
    const foreign = await runCli(...tune("early-end", "--set", "steps=40"));
    expect([foreign.code, foreign.stderr]).toEqual([2, expect.stringMatching(/got something else/)]);
    const digest = (path: string): string => adapterIdentity(path).replace(path, "");
    expect(digest(at("killed"))).toBe(digest(at("whole")));
    expect(readFileSync(at("whole", "adapter", "README.md"), "utf8")).toMatch(
      /base_model: .*\n(.*\n)*.*lora/,
    );
    expect(readdirSync(at("whole", "best")).length).toBe(1);

    const inspected = await runCli("adapter", "inspect", at("whole"), "--json");
    expect(JSON.parse(inspected.stdout)).toMatchObject({ config: { method: "lora", rank: 4 } });
    const merged = await runCli("adapter", "merge", at("whole"), "--output", at("merged"), "--device", "cpu");
    expect(merged.code).toBe(0);
    const card = readFileSync(at("merged", "README.md"), "utf8");
    expect(card).toContain(`base_model: ${basename(model)}\n`);
    expect(card).not.toContain(folder);
    expect(card).toMatch(/^license: /m);
    expect(card).toMatch(/## Tuned with Nautilus\n[^]*\| data \| .*data\.jsonl \|/);
    const again = await runCli("adapter", "merge", at("whole"), "--output", at("merged"), "--device", "cpu");
    expect([again.code, again.stderr]).toEqual([
      2,
      expect.stringMatching(/expected an empty folder .*--force/),
    ]);
    const say = (...more: string[]): Promise<{ stdout: string }> =>
      runCli(
        "generate",
        "--prompt",
        "fox",
        "--max-tokens",
        "8",
        "--temperature",
        "0",
        "--device",
        "cpu",
        ...more,
      );
    const [unmerged, whole2] = [
      await say("--model", model, "--adapter", at("whole")),
      await say("--model", at("merged")),
    ];
    expect(unmerged.stdout).toBe(whole2.stdout);
    expect((await say("--model", model)).stdout).not.toBe(unmerged.stdout);
  }, 120_000);

  it("says what a run takes, and sweeps the learning rate, without leaving anything", async () => {
    const lora = await runCli(...tune("dry", "--dry-run", "--json"));
    const full = await runCli(...tune("dry", "--dry-run", "--json", "--set", "method=full"));
    const [frozen, whole] = [lora, full].map(({ stdout }) => JSON.parse(stdout));
    expect(frozen.parameters).toBe(whole.parameters);
    expect(whole.trained).toBe(whole.parameters);
    expect(frozen.memory.gradients).toBe(4 * frozen.trained);
    expect(frozen.memory.optimizer).toBe(8 * frozen.trained);
    expect(frozen.memory.parameters).toBe(4 * (frozen.parameters + frozen.trained));
    const twice = await runCli(...tune("dry", "--dry-run", "--json", "--method", "ia3"));
    expect(twice.stderr).toMatch(/--set method=\{.*"lora".*\} replaces method="ia3", which an option gives/);
    expect(JSON.parse(twice.stdout).trained).toBe(frozen.trained);
    for (const { stderr } of [lora, full]) expect(stderr).not.toContain("which an option gives");
    const small = await runCli(...tune("dry", "--dry-run", "--json", "--set", "quantise=nf4"));
    expect(JSON.parse(small.stdout).memory.parameters).toBeLessThan(frozen.memory.parameters);

    const pairs = Array.from({ length: 6 }, (_, i) => ({
      prompt: "the quick brown fox jumps over the lazy dog ",
      chosen: `dog ${i}`,
      rejected: "fox",
    }));
    writeFileSync(at("pairs.jsonl"), pairs.map((row) => JSON.stringify(row)).join("\n"));
    const activations = async (sharePrompts: boolean): Promise<number> => {
      const settings = [
        `data.train=${JSON.stringify(at("pairs.jsonl"))}`,
        `data.sharePrompts=${sharePrompts}`,
      ];
      const options = settings.flatMap((setting) => ["--set", setting]);
      const { stdout } = await runCli(
        ...tune("dry", "--dry-run", "--json", "--objective", "dpo", ...options),
      );
      return JSON.parse(stdout).memory.activations;
    };
    expect(await activations(true)).toBeLessThan(0.9 * (await activations(false)));

    // Half of the pairs are held out, and judged as pairs; texts by their tokens.
    const validated = async (run: string, ...more: string[]): Promise<{ numTargets: number }> => {
      const settings = ["--set", "steps=1", "--set", "data.validationShare=0.5", ...more];
      const { stdout } = await runCli(...tune(run, "--json", ...settings));
      const line = stdout.split("\n").find((text) => text.includes('"kind":"validation"'));
      return JSON.parse(line ?? "{}");
    };
    const files = ["--set", `data.train=${JSON.stringify(at("pairs.jsonl"))}`];
    expect((await validated("judged", "--objective", "dpo", ...files)).numTargets).toBe(3);
    expect((await validated("counted")).numTargets).toBeGreaterThan(12);

    // Losses of the chosen texts are a field of an objective that is named; counted are the texts' tokens, shared or not, without padding.
    const onlyStep = async (
      run: string,
      sharePrompts: boolean,
    ): Promise<{ numTokens: number; loss: number }> => {
      const fields = ["steps=1", "batchSize=6", "data.validationShare=0", "objective.sftWeight=1"];
      const data = [`data.train=${JSON.stringify(at("pairs.jsonl"))}`, `data.sharePrompts=${sharePrompts}`];
      const options = [...fields, ...data].flatMap((field) => ["--set", field]);
      const { stdout } = await runCli(...tune(run, "--json", "--objective", "dpo", ...options));
      return JSON.parse(stdout.split("\n")[0]);
    };
    const [shared, apart] = [await onlyStep("shared", true), await onlyStep("apart", false)];
    const { tokens: allTokens } = JSON.parse(
      readFileSync(at("shared", "metrics.jsonl"), "utf8").split("\n")[0],
    );
    // The beginning of a text and its end are a token each.
    const tokenizer = loadTokenizer(model);
    const numTokens = pairs.reduce(
      (total, { prompt, chosen, rejected }) =>
        total +
        [prompt, chosen, prompt, rejected].reduce((sum, part) => sum + 1 + tokenizer.encode(part).length, 0),
      0,
    );
    expect([shared.numTokens, apart.numTokens]).toEqual([numTokens, numTokens]);
    expect(allTokens).toBe(6 * 48);
    expect(shared.loss).toBeGreaterThan(1);
    expect(shared.loss).toBeCloseTo(apart.loss, 5);

    const swept = await runCli(...tune("dry", "--find-lr", "60", "--json"));
    const { steepest, points } = JSON.parse(swept.stdout);
    expect(points[0].rate).toBeCloseTo(1e-6, 12);
    expect(points.length).toBeGreaterThan(20);
    const lowest = points.reduce((best: { smoothed: number }, point: { smoothed: number }) =>
      point.smoothed < best.smoothed ? point : best,
    );
    expect(lowest.smoothed).toBeLessThan(points[0].smoothed - 0.3);
    expect(steepest).toBeGreaterThan(1e-5);
    expect(steepest).toBeLessThan(lowest.rate);
    const shown = await runCli(...tune("dry", "--find-lr", "60"));
    expect(shown.stdout).toMatch(/suggested: --set optim.lr=/);
    expect(existsSync(at("dry"))).toBe(false);
  }, 120_000);

  it("merges into no folder that what it reads is in", async () => {
    cpSync(characterModel(), at("holds", "base"), { recursive: true });
    cpSync(fixture("lora"), at("holds", "lora"), { recursive: true });
    symlinkSync(at("holds", "base"), at("link"));
    const inventory = (): Set<string> =>
      new Set(readdirSync(at("holds"), { recursive: true, encoding: "utf8" }));
    const before = inventory();
    const refused: [string, string][] = [
      [at("holds", "base"), "base"],
      [at("link"), "base"],
      [at("holds"), "base"],
      [at("holds", "lora"), "adapter"],
    ];
    const merge = [
      "adapter",
      "merge",
      at("holds", "lora"),
      "--model",
      at("holds", "base"),
      "--device",
      "cpu",
    ];
    for (const [output, needed] of refused) {
      const { code, stderr } = await runCli(...merge, "--output", output, "--force");
      expect([code, stderr]).toEqual([
        2,
        expect.stringContaining(
          `expected an output folder of its own to replace, got ${output} (the ${needed} is in it)`,
        ),
      ]);
    }
    expect(inventory()).toEqual(before);
  });

  it("takes LoRA of NeMo where it takes its own", async () => {
    const lora = fixture("nemo/fused.nemo");
    const base = characterModel();
    const inspected = await runCli("adapter", "inspect", lora, "--json");
    expect(JSON.parse(inspected.stdout)).toMatchObject({
      baseModel: "models/tiny.nemo",
      config: { method: "lora", rank: 4, alpha: 6 },
    });
    for (const verb of ["merge", "export"]) {
      const made = await runCli(
        "adapter",
        verb,
        lora,
        "--model",
        base,
        "--output",
        at(verb),
        "--device",
        "cpu",
      );
      expect([made.code, made.stderr]).toEqual([0, expect.stringMatching(/ is in /)]);
    }
    const say = async (...more: string[]): Promise<string> => {
      const steady = ["--max-tokens", "8", "--temperature", "0", "--device", "cpu"];
      const said = await runCli("generate", "--prompt", "one two", ...steady, ...more);
      expect([said.code, said.stderr]).toEqual([0, expect.any(String)]);
      return said.stdout;
    };
    const plain = await say("--model", base);
    const adapted = await say("--model", base, "--adapter", lora);
    expect(adapted).not.toBe(plain);
    expect(await say("--model", base, "--adapter", at("export"))).toBe(adapted);
    expect(await say("--model", at("merge"))).toBe(adapted);
  }, 120_000);

  it("stops early, and tells what is wrong before anything is computed", async () => {
    const early = await runCli(
      ...tune("early", "--set", "steps=400", "--set", "evaluation.patience=1", "--set", "optim.lr=3"),
    );
    expect(early.code).toBe(0);
    expect(readFileSync(at("early", "metrics.jsonl"), "utf8")).not.toMatch(/"step":400\b/);
    expect(adapterIdentity(at("early"))).not.toBe(adapterIdentity(at("whole")).replace("whole", "early"));
    writeFileSync(at("empty.jsonl"), "");
    const refused: [string[], RegExp][] = [
      [tune("x", "--set", 'method={"method":"lora","targets":"q_porj"}'), /did you mean 'q_proj'/],
      [tune("x", "--set", 'method={"method":"lora","rank":0}'), /rank: expected/],
      [tune("x", "--method", "lora", "--set", "method.rank=0"), /rank: expected/],
      [tune("x", "--data", at("empty.jsonl")), /expected records in .*empty.jsonl, got none/],
      [tune("x", "--set", "maxLength=4096"), /maxLength: expected at most/],
      [
        tune("x", "--set", "method.method=dora", "--quantise", "nf4", "--dry-run"),
        /quantise: expected none with dora, got nf4/,
      ],
      [tune("x", "--objective", "dpo"), /expected prompt, chosen and rejected for dpo/],
      [["tune"], /expected a recipe, or --model and --data/],
      [tune("tokenizer"), /expected a new folder or a tuning run/],
    ];
    for (const [args, message] of refused) {
      const { code, stderr } = await runCli(...args);
      expect([code, stderr]).toEqual([2, expect.stringMatching(message)]);
    }
    expect(existsSync(at("x"))).toBe(false);
    cpSync(at("early", "adapter"), at("broken"), { recursive: true });
    copyFileSync(at("data.jsonl"), at("broken", "adapter_model.safetensors"));
    const broken = await runCli(
      "generate",
      "--model",
      model,
      "--adapter",
      at("broken"),
      "--prompt",
      "x",
      "--device",
      "cpu",
    );
    expect([broken.code, broken.stderr]).toEqual([
      2,
      expect.stringMatching(/expected a whole safetensors file/),
    ]);
  }, 120_000);
});
