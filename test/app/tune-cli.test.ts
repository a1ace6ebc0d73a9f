/** `nautilus tune` and `nautilus adapter` as users run them: killed and gone on with bit for bit, merged, refused. */
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openDevice } from "../../src/device/index.ts";
import { saveModelFolder } from "../../src/models/index.ts";
import { Context } from "../../src/tensor/index.ts";
import { runCli, startCli } from "./run-cli.ts";
import { tinyConfig } from "../tiny-model.ts";
import { Decoder } from "../../src/models/index.ts";

let folder: string;
let model: string;
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
    expect(readFileSync(at("whole", "adapter", "README.md"), "utf8")).toMatch(
      /base_model: .*\n(.*\n)*.*lora/,
    );
    expect(readdirSync(at("whole", "best")).length).toBe(1);

    const inspected = await runCli("adapter", "inspect", at("whole"), "--json");
    expect(JSON.parse(inspected.stdout)).toMatchObject({ config: { method: "lora", rank: 4 } });
    const merged = await runCli("adapter", "merge", at("whole"), "--output", at("merged"), "--device", "cpu");
    expect(merged.code).toBe(0);
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
    const small = await runCli(...tune("dry", "--dry-run", "--json", "--set", "quantise=nf4"));
    expect(JSON.parse(small.stdout).memory.parameters).toBeLessThan(frozen.memory.parameters);

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

  it("stops early, and tells what is wrong before anything is computed", async () => {
    const early = await runCli(
      ...tune("early", "--set", "steps=400", "--set", "evaluation.patience=1", "--set", "optim.lr=3"),
    );
    expect(early.code).toBe(0);
    expect(readFileSync(at("early", "metrics.jsonl"), "utf8")).not.toMatch(/"step":400\b/);
    writeFileSync(at("empty.jsonl"), "");
    const refused: [string[], RegExp][] = [
      [tune("x", "--set", 'method={"method":"lora","targets":"q_porj"}'), /did you mean 'q_proj'/],
      [tune("x", "--set", 'method={"method":"lora","rank":0}'), /rank: expected/],
      [tune("x", "--method", "lora", "--set", "method.rank=0"), /rank: expected/],
      [tune("x", "--data", at("empty.jsonl")), /expected records in .*empty.jsonl, got none/],
      [tune("x", "--set", "maxLength=4096"), /maxLength: expected at most/],
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
