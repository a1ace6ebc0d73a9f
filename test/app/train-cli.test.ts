/**
 * Training through the command line: from text to a model that writes; kill -9 in a loop and Ctrl-C, each ending with the very weights of
 * an uninterrupted run; and every kind of bad input as one sentence with exit code 2.
 */
import { spawnSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { RandomStream, sha256File } from "../../src/base/index.ts";
import { listCheckpoints, readMetrics } from "../../src/train/index.ts";
import { runCli, startCli } from "./run-cli.ts";
import { tinyRecipe } from "./tinyRecipe.ts";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "nautilus-"));
  mkdirSync(join(folder, "texts"));
  const random = new RandomStream(1);
  const words = ["sea", "shell", "spiral", "chamber", "deep", "light", "slow", "nautilus", "grows", "turns"];
  for (let file = 0; file < 12; file++) {
    const text = Array.from({ length: 300 }, () => words[random.nextInt(words.length)]).join(" ");
    writeFileSync(join(folder, "texts", `${file}.txt`), `${text}.\n`);
  }
  writeFileSync(join(folder, "recipe.json"), JSON.stringify(recipe));
});
afterAll(() => rmSync(folder, { recursive: true }));

const recipe = {
  ...tinyRecipe,
  run: "unset",
  totalTokens: 60 * 256,
  precision: "bf16",
  optim: { lr: 0.01, minLr: 0.001, warmupTokens: 512, moments: "bf16", master: false },
  evaluation: { everySteps: 20 },
  checkpoint: { everySteps: 2 },
};

const train = (run: string, ...more: string[]) =>
  startCli(["train", "recipe.json", "--set", `run=${run}`, ...more], { cwd: folder });

function finalWeights(run: string): string {
  const newest = listCheckpoints(join(folder, run)).at(-1)?.path ?? "";
  return sha256File("test", join(newest, "model", "model.safetensors"));
}

describe("a run", () => {
  it("goes from text to a model that writes", async () => {
    const result = await train("whole").result;
    expect(result.stderr).toContain("validation loss");
    expect(result.code).toBe(0);
    const metrics = readMetrics(join(folder, "whole", "metrics.jsonl"));
    const losses = metrics.flatMap((line) => (line.kind === "train" ? [line.loss] : []));
    expect(losses).toHaveLength(60);
    expect(losses[59]).toBeLessThan(losses[0] - 1);
    expect(metrics.filter(({ kind }) => kind === "validation").map(({ step }) => step)).toEqual([20, 40, 60]);

    const generate = [
      "generate",
      "--model",
      join(folder, "whole"),
      "--prompt",
      "sea shell",
      "--max-tokens",
      "20",
      "--top-k",
      "5",
      "--seed",
      "3",
      "--json",
      "--device",
      "cpu",
    ];
    const [first, second] = [await runCli(...generate), await runCli(...generate)];
    expect(first.code).toBe(0);
    const parse = (text: string): unknown => (JSON.parse(text) as { results: unknown }).results;
    expect(parse(first.stdout)).toEqual(parse(second.stdout));
    expect(first.stdout).toMatch(/spiral|chamber|deep|light|slow|nautilus|grows|turns|shell|sea/);
  });

  it("survives kill -9 again and again, bit for bit", async () => {
    const random = new RandomStream(Date.now() % 1e6);
    let numKills = 0;
    for (let attempt = 0; attempt < 60; attempt++) {
      // By the run's own progress, not by the clock: some steps after it went on, in the middle of whatever it does then.
      const { child, result } = train("killed", "--json");
      const numSteps = 1 + random.nextInt(14);
      const delayMs = 20 * random.nextFloat();
      let numLines = 0;
      child.stdout?.on("data", (chunk: Buffer) => {
        const before = numLines;
        numLines += chunk.toString().split("\n").length - 1;
        if (before < numSteps && numLines >= numSteps) setTimeout(() => child.kill("SIGKILL"), delayMs);
      });
      const { code, stderr } = await result;
      if (code === null) {
        numKills++;
        continue;
      }
      expect(stderr).not.toContain("error");
      expect(code).toBe(0);
      break;
    }
    expect(numKills).toBeGreaterThan(0);
    expect(finalWeights("killed")).toBe(finalWeights("whole"));
    expect(readMetrics(join(folder, "killed", "metrics.jsonl")).map(({ step }) => step)).toEqual(
      readMetrics(join(folder, "whole", "metrics.jsonl")).map(({ step }) => step),
    );
    expect(
      readdirSync(join(folder, "killed", "checkpoints")).filter((name) => name.endsWith(".part")),
    ).toEqual([]);
  });

  it("stops at SIGINT with a checkpoint and goes on from it", async () => {
    const { child, result } = train("stopped", "--json");
    child.stdout?.once("data", () => child.kill("SIGINT"));
    const { code, stderr } = await result;
    expect(stderr).toContain("stopping after this step and saving");
    expect(code).toBe(130);
    const [, ...rest] = listCheckpoints(join(folder, "stopped"));
    expect(rest.length).toBeLessThan(30);
    const resumed = await train("stopped").result;
    expect(resumed.stderr).toContain("going on from");
    expect(resumed.code).toBe(0);
    expect(finalWeights("stopped")).toBe(finalWeights("whole"));
  });

  it("is estimated with the optimizer's states that its recipe chooses", async () => {
    const perParameter = async (moments: string, master: boolean): Promise<number> => {
      const set = ["--set", `optim.moments=${moments}`, "--set", `optim.master=${master}`];
      const { stdout } = await train("dry", "--dry-run", "--json", ...set).result;
      const { memory, parameters }: { memory: Record<string, number>; parameters: number } =
        JSON.parse(stdout);
      return (memory["parameters"] + memory["gradients"] + memory["optimizer"]) / parameters;
    };
    // bf16 weights and gradients, and with them: f32 moments and master; bf16 moments and f32 master; bf16 moments alone, rounded stochastically.
    expect(await perParameter("f32", true)).toBe(16);
    expect(await perParameter("bf16", true)).toBe(12);
    expect(await perParameter("bf16", false)).toBe(8);
  });

  it("tells memory and time without training, and refuses what cannot fit", async () => {
    const dry = await train("dry", "--dry-run", "--json").result;
    expect(dry.code).toBe(0);
    expect(JSON.parse(dry.stdout)).toMatchObject({ fits: true, numSteps: 60 });
    expect(dry.stderr).not.toContain("warm-up");
    const cold = await train("dry", "--dry-run", "--set", "optim.warmupTokens=500000000").result;
    expect(cold.code).toBe(0);
    expect(cold.stderr).toMatch(
      /warm-up of 500 M tokens is no shorter than the run of .*optim\.warmupTokens/,
    );
    const huge = await train(
      "dry",
      "--dry-run",
      "--set",
      "model.width=65536",
      "--set",
      "model.ffnWidth=262144",
    ).result;
    expect(huge.code).toBe(2);
    expect(huge.stderr).toMatch(
      /\[train\] expected a run within .* got one of .*: weights .*\(lower microBatchSequences/,
    );
    expect(existsSync(join(folder, "dry"))).toBe(false);
  });
});

/** One sentence on the error stream, exit code 2, no stack. */
async function expectRefusal(
  result: Promise<{ code: number | null; stderr: string }>,
  message: RegExp,
): Promise<void> {
  const { code, stderr } = await result;
  expect(stderr).toMatch(message);
  expect(code).toBe(2);
  expect(stderr).not.toMatch(/\n\s+at /);
}

describe("bad input", () => {
  it.each([
    [["train", "nowhere.ts"], /\[recipe\] expected a recipe at nowhere.ts, got nothing there/],
    [["train", "recipe.json", "--set", "optim.learning=1"], /expected a known key, got 'optim.learning'/],
    [["train", "recipe.json", "--set", "totalTokens=-5"], /totalTokens: expected .*, got -5/],
    [
      ["train", "recipe.json", "--set", "batchTokens=100"],
      /batchTokens: expected a multiple of sequenceLength 32, got 100/,
    ],
    [["train", "recipe.json", "--set", 'data.train="missing"'], /missing/],
    [
      ["train", "recipe.json", "--set", "model.preset=nemotron-3-9b"],
      /expected a model name, got 'nemotron-3-9b' \(did you mean 'nemotron-3-8b'\?\)/,
    ],
    [["train", "recipe.json", "--wrong"], /unknown option '--wrong'/],
    [
      ["generate", "--model", "nowhere", "--prompt", "x"],
      /expected a run, a checkpoint or a model at nowhere, got nothing there/,
    ],
    [["generate", "--model", "texts", "--prompt", "x"], /got none of them/],
    [
      ["generate", "--model", "x", "--prompt", "x", "--top-k", "many"],
      /expected a whole number of at least 0/,
    ],
    [
      ["data", "prepare", "missing.jsonl", "--tokenizer", "nowhere", "--output", "o"],
      /expected a readable file at missing.jsonl, got nothing there/,
    ],
    [["model", "info", "gpt-5"], /expected a model name, got 'gpt-5'/],
  ] satisfies [string[], RegExp][])("%j is one sentence", async (args, message) => {
    await expectRefusal(startCli(args, { cwd: folder }).result, message);
  });

  it("names a checkpoint of another model, and a damaged one", async () => {
    cpSync(join(folder, "whole"), join(folder, "other"), { recursive: true });
    await expectRefusal(
      train("other", "--set", "model.ffnWidth=96").result,
      /expected .* of shape|expected .* as bf16/,
    );
    const truncate = (path: string): void => truncateSync(join(path, "model", "model.safetensors"), 100);
    const [older, newest] = listCheckpoints(join(folder, "other"));
    truncate(newest.path);
    const fallenBack = await train("other").result;
    expect(fallenBack.stderr).toMatch(
      /expected model\/model.safetensors in .* with sha256 .*; trying the checkpoint before it/,
    );
    expect(fallenBack.code).toBe(0);
    expect(finalWeights("other")).toBe(finalWeights("whole"));

    for (const { path } of listCheckpoints(join(folder, "other"))) truncate(path);
    await expectRefusal(train("other").result, /expected model\/model.safetensors in .* with sha256/);
    expect(older.step).toBeLessThan(newest.step);
    const generate = runCli("generate", "--model", join(folder, "other"), "--prompt", "x", "--device", "cpu");
    await expectRefusal(generate, /expected a whole safetensors file/);
  });

  it("leaves the last checkpoint whole when the disk is full", async (test) => {
    const disk = join(folder, "disk");
    mkdirSync(disk);
    if (spawnSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", disk]).status !== 0)
      test.skip("this user may not mount a small disk");
    try {
      const { code, stderr } = await train("disk/run", "--set", "model.ffnWidth=512").result;
      expect(stderr).toMatch(/got a full disk \(free some space and run the same command again\)/);
      expect(code).toBe(2);
      for (const { path } of listCheckpoints(join(disk, "run")))
        expect(existsSync(join(path, "checksums.json"))).toBe(true);
    } finally {
      spawnSync("umount", [disk]);
    }
  });
});
