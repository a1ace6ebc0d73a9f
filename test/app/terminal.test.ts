/** What a terminal of 80 columns shows of each verb, and Ctrl-C in the middle of the long ones. */
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startCli } from "./run-cli.ts";

const folder = mkdtempSync(join(tmpdir(), "nautilus-terminal-"));
const run = (...args: string[]) => startCli(args, { cwd: folder });
beforeAll(() => {
  const lines = Array.from(
    { length: 60_000 },
    (_, i) => `{"text":"line ${i * 7919} of the deep sea, number ${i}"}\n`,
  );
  writeFileSync(join(folder, "large.jsonl"), lines.join(""));
  writeFileSync(join(folder, "small.jsonl"), lines.slice(0, 500).join(""));
});
afterAll(() => rmSync(folder, { recursive: true }));

const tooLong = (text: string): string[] => text.split("\n").filter((line) => line.length > 80);

describe("80 columns", () => {
  it("hold the help of every verb", async () => {
    const { stdout } = await run("--help").result;
    expect(tooLong(stdout)).toEqual([]);
    const verbs = [...stdout.matchAll(/^ {2}([a-z]+)(?: \[| <| {2,})/gm)].map(([, verb]) => verb);
    expect(verbs).toEqual(expect.arrayContaining(["train", "generate", "pull", "convert", "doctor"]));
    for (const verb of verbs.filter((name) => name !== "help")) {
      const help = await run(verb, "--help").result;
      expect(help.code, verb).toBe(0);
      expect(tooLong(help.stdout), verb).toEqual([]);
    }
  });

  it("hold what the short verbs print", async () => {
    for (const args of [["doctor"], ["model", "list"], ["model", "info", "nemotron-3-8b"]]) {
      const { stdout, code } = await run(...args).result;
      expect(code, args.join(" ")).toBe(0);
      // A path of this machine is one word and is never broken.
      expect(
        tooLong(stdout).filter((line) => line.trim().includes(" ") && !line.includes("/")),
        args.join(" "),
      ).toEqual([]);
    }
  });
});

describe("Ctrl-C leaves nothing half-written, exit code 130", () => {
  it("tokenizer train", async () => {
    await interrupt(["tokenizer", "train", "large.jsonl", "--output", "tokenizer", "--vocab-size", "30000"]);
  });

  it("data prepare", async () => {
    const trained = await run("tokenizer", "train", "small.jsonl", "--output", "small", "--vocab-size", "400")
      .result;
    expect(trained.code, trained.stderr).toBe(0);
    await interrupt([
      "data",
      "prepare",
      "large.jsonl",
      "--tokenizer",
      "small",
      "--output",
      "prepared",
      "--workers",
      "1",
    ]);
  });
});

it("Ctrl-C while train prepares its data leaves no part of it", async () => {
  const recipe = {
    run: "run",
    model: { preset: "nemotron-tiny" },
    tokenizer: { vocabSize: 8000 },
    data: { train: [{ source: { kind: "json-lines", paths: "large.jsonl" } }] },
    sequenceLength: 32,
    totalTokens: 1024,
    batchTokens: 256,
    microBatchSequences: 4,
    // No warning of a long warm-up: the first thing to be heard is the preparation.
    optim: { warmupTokens: 256 },
    device: "cpu",
  };
  writeFileSync(join(folder, "recipe.json"), JSON.stringify(recipe));
  const { child, result } = run("train", "recipe.json");
  child.stderr?.once("data", () => child.kill("SIGINT"));
  const { code, stderr } = await result;
  expect(stderr).toContain("stopping; what is prepared in whole stays");
  expect(stderr).not.toContain("error");
  expect(code).toBe(130);
  const left = readdirSync(join(folder, "run"), { recursive: true }).map(String);
  expect(left.filter((name) => /part|bin|idx/.test(name))).toEqual([]);
});

/** Sends SIGINT when the verb shows its first progress, and compares the folder with what it was. */
async function interrupt(args: readonly string[]): Promise<void> {
  const before = readdirSync(folder).sort();
  const { child, result } = run(...args);
  child.stderr?.once("data", () => child.kill("SIGINT"));
  const { code, stderr, stdout } = await result;
  expect(stderr).toContain("stopping; nothing is written");
  expect(stderr).not.toContain("error");
  expect(stdout).toBe("");
  expect(code).toBe(130);
  expect(readdirSync(folder).sort()).toEqual(before);
}
