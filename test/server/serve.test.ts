/** `nautilus serve` as a program: started on a small model, asked, and ended by SIGTERM; and what it says to wrong options. */
import { spawn, spawnSync } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { serverInfoSchema } from "../../src/app/api/serverInfo.ts";
import { smallConfig, writeModel } from "../app/model-folders.ts";

const program = fileURLToPath(new URL("../../bin/nautilus.js", import.meta.url));
let folder: string;
let child: ChildProcess;
let page = "";
let client: OpenAI;

const refused =
  /expected 0 to 128 likely tokens beside each token of the answer, got \d+ .*ask for the likeliest/;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "nautilus-serve-"));
  await writeModel(folder, smallConfig("nemotron-tiny"));
  writeFileSync(join(folder, "README.md"), "---\nlicense: apache-2.0\n---\n# A model\n");
  const options = ["--model", folder, "--model-name", "small", "--port", "0", "--device", "reference"];
  child = spawn(process.execPath, [program, "serve", ...options, "--no-playground", "--api-key", "k"], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  child.stdout?.setEncoding("utf8");
  for await (const text of child.stdout as AsyncIterable<string>) {
    page += text;
    if (page.includes("Ctrl-C")) break;
  }
  client = new OpenAI({ baseURL: /http:\S+\/v1/.exec(page)?.[0] ?? "", apiKey: "k", maxRetries: 0 });
});
afterAll(() => {
  child.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
});

describe("nautilus serve", () => {
  it("prints where it is and what to try", () => {
    expect(page).toContain("small: f32 on ");
    expect(page).toMatch(/curl http:\/\/127\.0\.0\.1:\d+\/v1\/completions [^]*Authorization: Bearer/);
    expect(page.split("\n").filter((line) => line.length > 80)).toEqual([]);
  });

  it("names the license of the card where the folder has no text of it", async () => {
    const response = await fetch(new URL("/info", client.baseURL), {
      headers: { authorization: "Bearer k" },
    });
    const [{ license }] = serverInfoSchema.parse(await response.json()).models;
    expect(license).toBe("apache-2.0, as the model card says: the folder has no license file.");
  });

  it("answers the same streamed, unstreamed and read back as a prompt", async () => {
    const request = {
      model: "small",
      prompt: "Ship",
      max_tokens: 12,
      temperature: 0,
      logprobs: 2,
      echo: true,
    };
    const { choices } = await client.completions.create(request);
    let streamed = "";
    for await (const chunk of await client.completions.create({ ...request, stream: true }))
      streamed += chunk.choices[0].text;
    expect(streamed).toBe(choices[0].text);
    const all = choices[0].logprobs?.token_logprobs ?? [];
    expect(all.slice(1).every((logprob) => logprob < 0)).toBe(true);
    const sampled = { ...request, temperature: 1, seed: 3, echo: false };
    const once = await client.completions.create(sampled);
    const twice = await client.completions.create(sampled);
    expect(twice.choices).toEqual(once.choices);
  });

  it("holds answers to a pattern, embeds, and refuses strangers", async () => {
    const guided = await client.completions.create({
      model: "small",
      prompt: "x",
      max_tokens: 8,
      guided_choice: ["yes", "no"],
    } as OpenAI.CompletionCreateParamsNonStreaming);
    expect(["yes", "no"]).toContain(guided.choices[0].text);
    const { data } = await client.embeddings.create({ model: "small", input: ["a", "b"] });
    expect(data.map(({ embedding }) => embedding.length)).toEqual([24, 24]);
    await expect(
      new OpenAI({ baseURL: client.baseURL, apiKey: "no", maxRetries: 0 }).models.list(),
    ).rejects.toThrow(/401/);
  });

  it("refuses distributions over the whole vocabulary with a sentence, on every route", async () => {
    const base = client.baseURL.replace(/\/v1$/, "");
    const flag = (name: string) => ({ name, datatype: "BOOL", shape: [1, 1], data: [true] });
    const prompts = { name: "prompts", datatype: "BYTES", shape: [1, 1], data: ["Ship"] };
    const cases: [string, object, RegExp][] = [
      ["/v2/models/small/infer", { inputs: [prompts, flag("output_context_logits")] }, refused],
      ["/v2/models/small/infer", { inputs: [prompts, flag("output_generation_logits")] }, refused],
      ["/v2/models/small/generate", { prompts: "Ship", output_logits: true }, refused],
      ["/v1/completions", { model: "small", prompt: "Ship", logprobs: 129 }, /logprobs.*129/],
    ];
    for (const [path, body, message] of cases) {
      const headers = { authorization: "Bearer k", "content-type": "application/json" };
      const answer = await fetch(base + path, { method: "POST", headers, body: JSON.stringify(body) });
      expect([path, answer.status]).toEqual([path, 400]);
      expect(await answer.text()).toMatch(message);
    }
  });

  it("ends by SIGTERM with what runs complete", async () => {
    const stream = await client.completions.create({
      model: "small",
      prompt: "Ship",
      max_tokens: 40,
      temperature: 0,
      stream: true,
      ignore_eos: true,
    } as OpenAI.CompletionCreateParamsStreaming);
    const exited = once(child, "exit");
    child.kill("SIGTERM");
    let last: string | null = null;
    for await (const chunk of stream) last = chunk.choices[0].finish_reason ?? last;
    expect(last).toBe("length");
    expect(await exited).toEqual([0, null]);
  });

  it("says in a sentence what is wrong with its options", () => {
    const cases: [string[], RegExp][] = [
      [["--model", join(folder, "none")], /\[model\] expected a run, a checkpoint or a model at/],
      [["--model", folder, "--tls-cert", "a.pem"], /expected --tls-cert and --tls-key together/],
      [["--model", folder, "--model", folder], /expected models of different names/],
    ];
    for (const [options, message] of cases) {
      const { status, stderr } = spawnSync(process.execPath, [program, "serve", ...options], {
        encoding: "utf8",
      });
      expect(stderr).toMatch(message);
      expect(status).toBe(2);
    }
  });
});
