/** `nautilus eval` as a user runs it: reports, resumption, servers by URL, and what it refuses. */
import {
  appendFileSync,
  cpSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { runCli, startCli } from "../app/run-cli.ts";
import { dataFolder } from "./data.ts";
import { writeMadeUpData } from "./madeUpData.ts";

const model = fileURLToPath(new URL("../fixtures/eval/model", import.meta.url));
const documents = fileURLToPath(new URL("../fixtures/eval/documents.json", import.meta.url));
const data = writeMadeUpData(documents);
const folder = mkdtempSync(join(tmpdir(), "nautilus-eval-"));
const local = ["--model", model, "--device", "cpu", "--bootstrap-iterations", "0"];
const results = z.object({ results: z.record(z.string(), z.record(z.string(), z.unknown())) });

afterAll(() => {
  data[Symbol.dispose]();
  rmSync(folder, { recursive: true, force: true });
});

async function evaluated(args: readonly string[]): Promise<z.output<typeof results>["results"]> {
  const { code, stdout, stderr } = await runCli("eval", ...args, "--data", data.folder, "--json");
  expect(stderr).not.toContain("error:");
  expect(code).toBe(0);
  return results.parse(JSON.parse(stdout)).results;
}

describe("a run", () => {
  const output = join(folder, "run");
  const args = [...local, "--tasks", "arc_challenge,boolq", "--output", output];

  it("writes logs, results and reports, and goes on where it stopped", async () => {
    const whole = await evaluated([...local, "--tasks", "arc_challenge,boolq"]);
    await evaluated([...args, "--limit", "2"]);
    const log = join(output, "samples", "boolq.jsonl");
    const before = readFileSync(log, "utf8");
    // As an interruption leaves it: the beginning of a line.
    appendFileSync(log, before.slice(0, 50));
    expect(await evaluated(args)).toEqual(whole);
    const after = readFileSync(log, "utf8");
    expect(after.startsWith(before)).toBe(true);
    expect(after.trimEnd().split("\n")).toHaveLength(5);
    expect(readFileSync(join(output, "results.md"), "utf8")).toContain("| BoolQ ");
    expect(readFileSync(join(output, "model-index.yaml"), "utf8")).toContain("model-index:");
    const page = readFileSync(join(output, "report.html"), "utf8");
    expect(page).toContain("does the nautilus swim");
    expect(page).not.toMatch(/(src|href)="?http/);
  });

  it("refuses to go on with other settings, or with other data", async () => {
    const shots = await runCli("eval", ...args, "--data", data.folder, "--num-fewshot", "1");
    expect(shots.stderr).toMatch(/expected the settings that .* holds, got another numFewshot/);
    expect(shots.code).toBe(2);
    using other = writeMadeUpData(documents);
    const path = join(other.folder, "boolq", "validation.jsonl");
    writeFileSync(path, readFileSync(path, "utf8").replace("jets of water", "hot air"));
    const changed = await runCli("eval", ...args, "--data", other.folder);
    expect(changed.stderr).toMatch(
      /expected the log of boolq to hold the same prompts, got another one at sample 0/,
    );
    expect(changed.code).toBe(2);
  });

  it("stops at Ctrl-C with what it has, and goes on", async (test) => {
    test.skip(!existsSync(dataFolder), `the evaluation data is not here (${dataFolder})`);
    const stopped = join(folder, "stopped");
    const args = [
      "eval",
      ...local,
      "--tasks",
      "hellaswag",
      "--no-nvidia",
      "--data",
      dataFolder,
      "--output",
      stopped,
    ];
    const { child, result } = startCli(args);
    const log = join(stopped, "samples", "hellaswag.jsonl");
    const timer = setInterval(() => {
      if (!existsSync(log) || readFileSync(log).length === 0) return;
      clearInterval(timer);
      child.kill("SIGINT");
    }, 20);
    const { code, stderr } = await result;
    clearInterval(timer);
    expect(stderr).toContain("goes on");
    expect(code).toBe(130);
    const numLogged = (): number => readFileSync(log, "utf8").trimEnd().split("\n").length;
    expect(numLogged()).toBeGreaterThan(0);
    expect(numLogged()).toBeLessThan(1000);
    expect((await runCli(...args)).code).toBe(0);
    expect(numLogged()).toBe(1000);
  });

  it("compares two runs with paired significance", async () => {
    const second = join(folder, "second");
    await evaluated([...local, "--tasks", "boolq", "--output", second, "--precision", "bf16"]);
    const { stdout, code } = await runCli("eval", "compare", output, second, "--json");
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject([{ task: "boolq", metric: "acc,none", numSamples: 5 }]);
  });

  it("takes tasks from a user's own file", async () => {
    const path = join(folder, "own.ts");
    const library = fileURLToPath(new URL("../../src/eval/index.ts", import.meta.url));
    const zod = fileURLToPath(import.meta.resolve("zod"));
    writeFileSync(
      path,
      `import { defineTask, usualFiles } from ${JSON.stringify(library)};
import { z } from ${JSON.stringify(zod)};
export const own = defineTask({
  name: "own", title: "Own", version: 1, split: "test",
  source: { folder: "openbookqa", splits: { test: usualFiles("test") }, row: z.object({ question_stem: z.string() }), homepage: "here", licence: "mine" },
  prompt: (row) => row.question_stem, answer: () => "yes",
  request: { kind: "choice", choices: () => ["yes", "no"], gold: () => [0], metrics: ["acc"] },
});`,
    );
    const own = await evaluated([...local, "--tasks", "own", "--task-file", path]);
    expect(own["own"]).toHaveProperty("acc,none");
  });
});

describe("a server by its address", () => {
  let url = "";
  let server: ReturnType<typeof startCli>;

  beforeAll(async () => {
    server = startCli(["serve", "--model", model, "--port", "0", "--device", "cpu", "--precision", "f32"]);
    url = await new Promise<string>((resolve, reject) => {
      let text = "";
      const look = (piece: Buffer): void => {
        text += piece.toString();
        const found = /http:\/\/127\.0\.0\.1:\d+/.exec(text)?.[0];
        if (found !== undefined) resolve(found);
      };
      server.child.stdout?.on("data", look);
      server.child.stderr?.on("data", look);
      server.child.once("exit", () => reject(new Error(text)));
    });
  });

  afterAll(() => {
    server.child.kill("SIGTERM");
  });

  it("scores what the engine scores in this process", async () => {
    const tasks = ["--tasks", "arc_challenge,boolq,openbookqa,wikitext", "--bootstrap-iterations", "0"];
    const here = await evaluated(["--model", model, "--device", "cpu", "--precision", "f32", ...tasks]);
    const there = await evaluated([
      "--url",
      `${url}/v1`,
      "--tokenizer",
      model,
      "--max-length",
      "1536",
      ...tasks,
    ]);
    for (const [task, figures] of Object.entries(here)) {
      for (const [key, value] of Object.entries(figures)) {
        const other = there[task][key];
        if (typeof value === "number")
          expect(Math.abs(Number(other) / value - 1) < 1e-5 || other === value, `${task} ${key}`).toBe(true);
        else expect(other).toEqual(value);
      }
    }
  });
});

describe("bad input is one sentence", () => {
  it.each([
    [["--tasks", "hellaswg"], /expected a task's name, got 'hellaswg' \(did you mean 'hellaswag'\?/],
    [[], /expected --tasks with at least one name, got none/],
    [["--tasks", "boolq", "--url", "http://127.0.0.1:9/v1"], /expected either --model or --url, got both/],
    [["--tasks", "boolq", "--kv-cache", "int8"], /Allowed choices are auto, fp8/],
    [
      ["--tasks", "piqa"],
      /expected the validation split of piqa at .*, got nothing there \(get it from .* \(licence: AFL 3.0\)/,
    ],
    [["--tasks", "humaneval"], /expected --run-code for humaneval, got none/],
    [["--tasks", "boolq", "--num-fewshot", "99"], /expected at most 5 examples for boolq, got 99/],
    [["--tasks", "wikitext", "--num-fewshot", "1"], /expected no examples for wikitext, got 1/],
    [["--tasks", "boolq", "--task-file", "nowhere.ts"], /expected a module with tasks at nowhere.ts/],
    [["--tasks", "boolq", "--mmlu", "other"], /Allowed choices are original, lm-eval, helm/],
  ] satisfies [string[], RegExp][])("%j", async (args, message) => {
    const { code, stderr } = await runCli("eval", ...local, "--data", data.folder, ...args);
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(/\n\s+at /);
    expect(code).toBe(2);
  });

  it("names file and line of a malformed row", async () => {
    using other = writeMadeUpData(documents);
    const path = join(other.folder, "boolq", "validation.jsonl");
    const run = async () => await runCli("eval", ...local, "--tasks", "boolq", "--data", other.folder);
    appendFileSync(path, '{"passage": "x", "question": "y", "label": 7}\n');
    expect((await run()).stderr).toMatch(/expected .*label.* in .*boolq.validation.jsonl line 6, got /);
    writeFileSync(path, "{broken\n");
    const broken = await run();
    expect(broken.stderr).toMatch(/expected JSON in .*validation.jsonl line 1/);
    expect(broken.code).toBe(2);
  });

  it("says that a server lacks log-probabilities of prompts, and what can run all the same", async () => {
    const server = createServer((request, response) => {
      request.resume();
      response.setHeader("content-type", "application/json");
      const logprobs = { tokens: ["x"], token_logprobs: [-1], top_logprobs: [{ x: -1 }], text_offset: [0] };
      response.end(JSON.stringify({ data: [{ id: "m" }], choices: [{ index: 0, text: "x", logprobs }] }));
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    const { stderr, code } = await runCli(
      "eval",
      "--url",
      `http://127.0.0.1:${port}/v1`,
      "--tokenizer",
      model,
      "--tasks",
      "boolq",
      "--data",
      data.folder,
    );
    server.close();
    expect(stderr).toMatch(
      /expected a server that gives log-probabilities of prompts for boolq, got one that does not: .* \(tasks that generate can still run: .*gsm8k_maj8.*tydiqa_goldp/,
    );
    expect(code).toBe(2);
  });

  it("refuses a tokenizer that has more tokens than the model", async () => {
    const other = join(folder, "larger");
    cpSync(model, other, { recursive: true });
    const path = join(other, "tokenizer.json");
    const file = z
      .looseObject({ added_tokens: z.array(z.looseObject({ id: z.number() })) })
      .parse(JSON.parse(readFileSync(path, "utf8")));
    file.added_tokens.push({ ...file.added_tokens[0], id: 1024, content: "<one more>" });
    writeFileSync(path, JSON.stringify(file));
    const { stderr, code } = await runCli(
      "eval",
      ...local,
      "--tasks",
      "boolq",
      "--tokenizer",
      other,
      "--data",
      data.folder,
    );
    expect(stderr).toMatch(/expected .*token/);
    expect(code).toBe(2);
  });

  it.each([
    ["--quantise", "fp8"],
    ["--kv-cache", "fp8"],
    ["--precision", "f32"],
    ["--adapter", "folder"],
  ])("refuses %s where a server computes", async (option, value) => {
    const url = ["--url", "http://127.0.0.1:9/v1"];
    const { stderr, code } = await runCli("eval", ...url, "--tasks", "boolq", option, value);
    expect(stderr).toContain(`expected ${option} with --model, got it with --url`);
    expect(code).toBe(2);
  });

  it("says that nothing answers at an address", async () => {
    const { stderr, code } = await runCli(
      "eval",
      "--url",
      "http://127.0.0.1:9/v1",
      "--tasks",
      "boolq",
      "--data",
      data.folder,
    );
    expect(stderr).toMatch(/expected a server at http:\/\/127.0.0.1:9\/v1/);
    expect(code).toBe(2);
  });
});
