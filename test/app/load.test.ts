/** A model in a program: in a worker thread and in this one the same, and a worker that dies takes nobody with it for long. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openEngine } from "../../src/app/api/openEngine.ts";
import { EngineFailedError, OutOfMemoryError, RequestError, setLogSink } from "../../src/base/index.ts";
import { openDevice } from "../../src/device/index.ts";
import { load } from "../../src/index.ts";
import type { LoadOptions } from "../../src/index.ts";
import { parseSampling, ThreadedEngine } from "../../src/infer/index.ts";
import { readModelFolderConfig, weightBytes } from "../../src/models/index.ts";
import { smallConfig, writeModel } from "./model-folders.ts";
import { runCli } from "./run-cli.ts";

const folder = mkdtempSync(join(tmpdir(), "nautilus-load-"));
beforeAll(() => writeModel(folder, smallConfig("nemotron-tiny")));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const settings = { device: "cpu", cacheTokens: 512 } as const;

describe("load", () => {
  it("gives the same in a worker and in this thread, streamed or whole, alone or together", async () => {
    const texts: string[] = [];
    for (const thread of ["worker", "caller"] as const) {
      await using model = await load(folder, { ...settings, thread });
      const options = { maxTokens: 24, seed: 5, temperature: 1 };
      let streamed = "";
      for await (const text of model.stream("Once upon", options)) streamed += text;
      const together = await Promise.all(
        ["Once upon", "", "Once upon"].map((prompt) => model.generate(prompt, options)),
      );
      expect(together[0].text).toBe(streamed);
      expect(together[2].tokens).toEqual(together[0].tokens);
      expect(together[1].numPromptTokens).toBe(1);
      texts.push(streamed);
      const [pooled] = await model.embed(["Once upon"], "last");
      expect(pooled.length).toBe(24);
      const scores = await model.languageModel().loglikelihood([{ context: "Once", continuation: " upon" }]);
      expect(scores[0].logprob).toBeLessThan(0);
      const constraint = { kind: "json-schema", schema: { enum: ["yes", "no"] } } as const;
      expect((await model.generate("Answer: ", { constraint })).text).toMatch(/^"(yes|no)"$/);
      // Leaving early frees what was held.
      for await (const _text of model.stream("Once", { maxTokens: 40, stopAtEnd: false })) break;
      await expect.poll(() => model.engine.statistics().numUsedBlocks, { timeout: 5000 }).toBe(0);
      await expect(model.generate(Array.from({ length: 70 }, () => 1))).rejects.toThrow(RequestError);
      await expect(model.generate("x", { adapter: "none" })).rejects.toThrow("adapters are not available");
    }
    expect(texts[1]).toBe(texts[0]);
  });

  it("gives the same with weights mapped, as by default, and read", async () => {
    const answers: unknown[] = [];
    for (const mmap of [undefined, true, false]) {
      await using model = await load(folder, { ...settings, thread: "caller", mmap });
      const { text, tokens } = await model.generate("Once", {
        maxTokens: 16,
        temperature: 0,
        numLogprobs: 3,
      });
      answers.push({ text, tokens });
    }
    expect(answers[1]).toEqual(answers[0]);
    expect(answers[2]).toEqual(answers[0]);
  });

  it("opens a model that memory has no room for where its weights are mapped, with a warning", async () => {
    using on = await openDevice({ kind: "cpu" });
    const memory = on.memory();
    const freeBytes = weightBytes(readModelFolderConfig(folder), "f32") / 2;
    Object.defineProperty(on, "memory", { value: () => ({ ...memory, freeBytes }), configurable: true });
    const messages: string[] = [];
    const sink = setLogSink((level, message) => messages.push(`${level}: ${message}`));
    try {
      const engine = { model: folder, on, precision: "f32", cacheTokens: 256 } as const;
      await expect(openEngine({ ...engine, mmap: false })).rejects.toThrow(OutOfMemoryError);
      const held = { ...engine, mmap: false, precision: "bf16" } as const;
      Object.defineProperty(on, "memory", {
        value: () => ({ ...memory, freeBytes: 1000 }),
        configurable: true,
      });
      await expect(openEngine({ ...held, quantise: "fp8" })).rejects.toThrow("in fp8, got");
      await expect(openEngine({ ...held, quantise: "fp8" })).rejects.toThrow("lower it with --quantise nf4");
      await expect(openEngine({ ...held, quantise: "nf4" })).rejects.toThrow("take a smaller model");
      Object.defineProperty(on, "memory", { value: () => ({ ...memory, freeBytes }) });
      expect(messages).toEqual([]);
      await using open = await openEngine(engine);
      expect(open.engine.info.device).toBe(on.description);
      expect(messages).toEqual([
        expect.stringMatching(/^warning: expected .* of memory for the weights of .*, got /),
      ]);
    } finally {
      setLogSink(sink);
    }
  });

  it("answers in Nemotron's format where the model has no chat template", async () => {
    await using model = await load(folder, { ...settings, thread: "caller" });
    const options = { maxTokens: 8, temperature: 0 };
    const answer = await model.chat([{ role: "user", content: "hi" }], options);
    // As the card of nvidia/nemotron-3-8b-chat-4k-sft spells it.
    const text = "<extra_id_0>System\n\n<extra_id_1>User\nhi\n<extra_id_1>Assistant\n";
    const prompt = Array.from(model.tokenizer.encode(text, { specialTokens: "parse" }));
    const { numCachedTokens: _, ...expected } = await model.generate(prompt, options);
    expect(answer).toMatchObject(expected);
    await expect(model.chat([{ role: "user", content: "<extra_id_1>Assistant" }])).rejects.toThrow(
      "[chat] expected messages without turn marks",
    );
  });

  it("draws its own seed where none is given", async () => {
    await using model = await load(folder, { ...settings, thread: "caller" });
    const options = { maxTokens: 30, temperature: 1, stopAtEnd: false };
    const all = await Promise.all([1, 2, 3].map(() => model.generate("Once", options)));
    expect(new Set(all.map(({ text }) => text)).size).toBe(3);
  });

  it("says what is wrong with a model that is not there", async () => {
    await expect(load(join(folder, "none"))).rejects.toThrow("expected a run, a checkpoint or a model");
    await expect(load(folder, { ...settings, cacheTokens: 3 })).rejects.toThrow(
      "a cache of at least one block",
    );
  });

  it("computes with 8-bit weights and cache and says so, in a worker and in this thread", async () => {
    const texts: string[] = [];
    for (const thread of ["worker", "caller"] as const) {
      await using model = await load(folder, { ...settings, thread, quantise: "fp8", kvCache: "fp8" });
      expect(model.engine.info).toMatchObject({ quantise: "fp8", kvCache: "fp8" });
      texts.push((await model.generate("Once upon", { maxTokens: 24, seed: 5, temperature: 1 })).text);
    }
    expect(texts[1]).toBe(texts[0]);
    await using plain = await load(folder, { ...settings, thread: "caller" });
    const { dtype } = plain.engine.info;
    expect(plain.engine.info).toMatchObject({ quantise: null, kvCache: dtype });
  });

  it("names the formats where there is none of the name, before it loads anything", async () => {
    const parse = (text: string): LoadOptions => JSON.parse(text);
    const expected = [
      ['{"quantise": "fp4"}', "expected quantise to be one of int8, nf4, int4, fp8, got 'fp4'"],
      ['{"kvCache": "int8"}', "expected kvCache to be one of auto, fp8, got 'int8'"],
      ['{"precision": "fp8"}', "expected precision to be one of f32, bf16, got 'fp8'"],
    ];
    for (const [text, message] of expected)
      for (const thread of ["worker", "caller"] as const)
        await expect(load(folder, { ...settings, ...parse(text), thread })).rejects.toThrow(message);
  });
});

describe("nautilus generate", () => {
  it("prints a chat's answer alone", async () => {
    await using model = await load(folder, { ...settings, thread: "caller" });
    const messages = [
      { role: "system", content: "Be brief." },
      { role: "user", content: "hi" },
    ];
    const { text } = await model.chat(messages, { maxTokens: 8, temperature: 0 });
    const asked = ["--prompt", "hi", "--system", "Be brief.", "--max-tokens", "8", "--temperature", "0"];
    const common = ["generate", "--model", folder, "--device", "cpu"];
    const { code, stdout } = await runCli(...common, "--chat", ...asked);
    expect([code, stdout]).toEqual([0, `${text}\n`]);
    expect((await runCli(...common, ...asked)).stderr).toContain("expected --chat with --system");
  });

  it("writes what a regular expression or a schema lets through, the same for the same seed", async () => {
    const schema = join(folder, "schema.json");
    writeFileSync(schema, JSON.stringify({ enum: ["red", "green"] }));
    const common = [
      "generate",
      "--model",
      folder,
      "--device",
      "cpu",
      "--prompt",
      "It is ",
      "--json",
      "--seed",
      "3",
    ];
    const texts = async (...options: string[]): Promise<string[]> => {
      const { stdout } = await runCli(...common, ...options);
      const { results }: { results: { text: string }[] } = JSON.parse(stdout);
      return results.map(({ text }) => text);
    };
    expect((await texts("--json-schema", schema))[0]).toMatch(/^"(red|green)"$/);
    const [first, second] = await texts("--regex", "[a-z]{3,5}!", "--count", "2");
    for (const text of [first, second]) expect(text).toMatch(/^[a-z]{3,5}!$/);
    expect(await texts("--regex", "[a-z]{3,5}!")).toEqual([first]);
    const wrong = await runCli(...common.filter((option) => option !== "--json"), "--regex", "(a");
    expect(wrong.code).toBe(2);
    expect(wrong.stderr).toContain("a group that does not end");
    expect(wrong.stdout).toBe("");
  });
});

describe("a worker that dies", () => {
  it("fails what was under way, and is replaced", async () => {
    const url = new URL("../../src/app/api/engineWorker.ts", import.meta.url);
    const workers: Worker[] = [];
    const crashes: unknown[] = [];
    await using engine = await ThreadedEngine.open({
      start: () => {
        const worker = new Worker(url, { workerData: { ...settings, model: folder } });
        workers.push(worker);
        return worker;
      },
      onCrash: (error) => crashes.push(error),
      restartMs: 20,
    });
    const sampling = parseSampling({ maxTokens: 40, temperature: 0, stopAtEnd: false });
    const run = async (): Promise<number[]> => {
      const tokens: number[] = [];
      for await (const event of engine.generate({ prompt: [5, 6, 7], sampling }))
        if (event.type === "token") tokens.push(event.token);
      return tokens;
    };
    const before = await run();
    expect(before.length).toBe(40);
    // So many that the worker cannot be done before it dies; ended once, since Node waits for its end anew at every call.
    let ended: Promise<number> | undefined;
    const cut = await Promise.allSettled(
      Array.from({ length: 300 }, async () => {
        for await (const event of engine.generate({ prompt: [5, 6, 7], sampling }))
          if (event.type === "token") ended ??= workers[0].terminate();
      }),
    );
    const failures = cut.filter((outcome) => outcome.status === "rejected");
    expect(failures.length).toBeGreaterThan(0);
    for (const { reason } of failures) expect(reason).toBeInstanceOf(EngineFailedError);
    await expect(run()).rejects.toThrow("started again");
    expect(crashes.length).toBe(1);
    await expect.poll(() => engine.isReady, { timeout: 30_000 }).toBe(true);
    expect(engine.numRestarts).toBe(1);
    expect(await run()).toEqual(before);
  });
});
