/** What a server meets from strangers and bad luck: each gets an answer of its protocol's shape, and the next request is served. */
import { connect } from "node:net";
import type { Socket } from "node:net";
import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { errorSchema } from "../../src/app/api/openai/index.ts";
import type { ServerOptionsInput } from "../../src/app/server/options.ts";
import { InvariantError } from "../../src/base/index.ts";
import type { NautilusServer } from "../../src/app/server/server.ts";
import { FakeEngine } from "./fakeEngine.ts";
import { fakeModel, fakeServer } from "./fakeServer.ts";

const path = "/v1/completions";

async function post(server: NautilusServer, body: unknown, route = path): Promise<[number, string]> {
  const text = typeof body === "string" || body instanceof Uint8Array ? body : JSON.stringify(body);
  const answer = await server.app.request(route, { method: "POST", body: text as RequestInit["body"] });
  const json: unknown = await answer.json();
  return [answer.status, answer.ok ? "" : errorSchema.parse(json).error.message];
}

async function until(condition: () => boolean, what: string): Promise<void> {
  for (let i = 0; i < 400; i++) {
    if (condition()) return;
    await delay(10);
  }
  throw new Error(`never happened: ${what}`);
}

async function socketTo(url: string): Promise<Socket> {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname);
  socket.on("error", () => undefined);
  await once(socket, "connect");
  return socket;
}

describe("bad requests", () => {
  const cases: [string, unknown, number, RegExp][] = [
    ["no JSON", "{", 400, /expected a body in JSON/],
    ["no body", "", 400, /expected a body in JSON/],
    ["an array", "[]", 400, /expected a JSON object, got an array/],
    ["invalid UTF-8", Uint8Array.of(0x7b, 0xff, 0x7d), 400, /expected a body in UTF-8/],
    ["no prompt", {}, 400, /prompt: expected .*got nothing/],
    [
      "a misspelt field",
      { prompt: "a", temprature: 1 },
      400,
      /'temprature' \(did you mean 'temperature'\?\)/,
    ],
    ["a negative temperature", { prompt: "a", temperature: -1 }, 400, /temperature: .*got -1/],
    ["an infinite temperature", '{"prompt":"a","temperature":1e999}', 400, /temperature: /],
    ["NaN", '{"prompt":"a","temperature":NaN}', 400, /expected a body in JSON/],
    ["a text as number", { prompt: "a", max_tokens: "5" }, 400, /max_tokens: .*got "5"/],
    ["ids past the vocabulary", { prompt: [1, 999_999] }, 400, /token ids below \d+, got 999999/],
    ["mixed prompts", { prompt: ["a", [1]] }, 400, /prompt: expected/],
    ["negative ids", { prompt: [-1] }, 400, /prompt\.0: expected/],
    ["a long prompt", { prompt: "word ".repeat(2000) }, 400, /expected at most 512 tokens/],
    ["a very long prompt", { prompt: "a".repeat(3e6) }, 400, /a text of 3000000 characters/],
    ["more tokens than the context", { prompt: "a", max_tokens: 100_000 }, 400, /and 100000 to generate/],
    ["an unknown model", { prompt: "a", model: "gpt-5" }, 404, /got 'gpt-5' \(it serves fake\)/],
    ["a suffix", { prompt: "a", suffix: "b" }, 400, /suffix/],
    ["best_of below n", { prompt: "a", n: 3, best_of: 2 }, 400, /best_of/],
    ["best_of streamed", { prompt: "a", best_of: 2, stream: true }, 400, /best_of/],
    ["too many sequences", { prompt: Array.from({ length: 20 }, () => "a"), n: 128 }, 400, /at most 1024/],
    ["two constraints", { prompt: "a", guided_regex: "a", guided_choice: ["a"] }, 400, /one constraint/],
    ["a biased stranger", { prompt: "a", logit_bias: { "999999": 1 } }, 400, /logit_bias/],
  ];
  it.each(cases)("answers %s in a sentence", async (_, body, status, message) => {
    await using server = fakeServer();
    const [got, text] = await post(server, body);
    expect(text).toMatch(message);
    expect(got).toBe(status);
    expect((await post(server, { prompt: "a", max_tokens: 1 }))[0]).toBe(200);
  });

  it("cuts a long prompt only when asked, and keeps its end", async () => {
    const engine = new FakeEngine();
    await using server = fakeServer({ engine });
    const prompt = "word ".repeat(2000);
    expect((await post(server, { prompt, max_tokens: 2, truncate_prompt_tokens: 10 }))[0]).toBe(200);
    const ids = [...engine.tokenizer.encode(prompt)];
    expect(engine.requests.at(-1)?.prompt).toEqual(ids.slice(-10));
  });

  it("refuses bodies over the limit, whether they say their size or not", async () => {
    await using server = fakeServer({ options: { bodyLimitBytes: 1000 } });
    const [url] = await server.start();
    const headers = { "content-type": "application/json" };
    const large = "x".repeat(5_000_000);
    const said = await fetch(url + path, { method: "POST", body: large, headers });
    expect([said.status, errorSchema.parse(await said.json()).error.code]).toEqual([413, "body_too_large"]);
    const stream = new ReadableStream({
      pull: (controller) => controller.enqueue(new Uint8Array(500)),
    });
    const unsaid = fetch(url + path, {
      method: "POST",
      body: stream,
      headers,
      duplex: "half",
    });
    // The client may hear of the refusal, or of the connection that ended under its endless body.
    const status = await unsaid.then(
      (answer) => answer.status,
      () => 413,
    );
    expect(status).toBe(413);
    const after = await fetch(`${url}/health`);
    expect(after.status).toBe(200);
  });

  it("takes 100 MB where it may, and stays alive", async () => {
    await using server = fakeServer({ options: { bodyLimitBytes: 150e6 } });
    const [url] = await server.start();
    const answer = await fetch(url + path, {
      method: "POST",
      body: JSON.stringify({ prompt: "a".repeat(100e6) }),
    });
    expect(answer.status).toBe(400);
    expect(errorSchema.parse(await answer.json()).error.code).toBe("context_length_exceeded");
    expect((await post(server, { prompt: "a", max_tokens: 1 }))[0]).toBe(200);
  });
});

describe("slow and vanishing clients", () => {
  it("ends connections whose headers or body trickle", async () => {
    await using server = fakeServer({ options: { headersTimeoutMs: 200, receiveTimeoutMs: 400 } });
    const [url] = await server.start();
    for (const start of [
      "POST /v1/comp",
      `POST ${path} HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{"pro`,
    ]) {
      const socket = await socketTo(url);
      let heard = "";
      socket.on("data", (chunk: Buffer) => (heard += chunk.toString("latin1")));
      socket.write(start);
      const trickle = setInterval(() => socket.write("x"), 50);
      // A reset is an end too.
      await new Promise<void>((resolve) => socket.once("close", () => resolve()));
      clearInterval(trickle);
      expect(heard).toMatch(/^HTTP\/1.1 408|^$/);
    }
    expect((await fetch(`${url}/health`)).status).toBe(200);
  });

  it.each([false, true])("stops generating when the client leaves (stream: %s)", async (stream) => {
    const engine = new FakeEngine({ tokenMs: 5 });
    const lines: string[] = [];
    await using server = fakeServer({ engine, lines });
    const [url] = await server.start();
    const controller = new AbortController();
    const body = JSON.stringify({ prompt: "a", max_tokens: 400, ignore_eos: true, stream });
    const asked = fetch(url + path, { method: "POST", body, signal: controller.signal });
    if (stream) await (await asked).body?.getReader().read();
    else asked.catch(() => undefined);
    await until(() => engine.numRunning === 1, "the engine runs");
    controller.abort();
    await until(() => engine.numRunning === 0, "the engine stopped");
    await until(() => lines.length > 0, "a log line");
    expect(server.context.admission.numHeld).toBe(0);
    expect(server.context.openRequests.size).toBe(0);
    expect(JSON.parse(lines[0])).toMatchObject({ status: 499, route: path });
  });

  it("gives up after the time limit: a status before the stream, an event within it", async () => {
    const engine = new FakeEngine({ tokenMs: 20 });
    await using server = fakeServer({ engine, options: { requestTimeoutMs: 300 } });
    const long = { prompt: "a", max_tokens: 400, ignore_eos: true };
    expect((await post(server, long))[0]).toBe(504);
    const answer = await server.app.request(path, {
      method: "POST",
      body: JSON.stringify({ ...long, stream: true }),
    });
    const events = (await answer.text()).trim().split("\n\n");
    expect(answer.status).toBe(200);
    expect(errorSchema.parse(JSON.parse(events.at(-1)?.slice(6) ?? "")).error.code).toBe("timeout");
    expect(engine.numRunning).toBe(0);
  });
});

describe("load and bad luck", () => {
  it("answers 429 with a time to come back when the queue is full", async () => {
    const engine = new FakeEngine({ tokenMs: 20 });
    await using server = fakeServer({ engine, options: { maxConcurrent: 1, maxQueue: 1 } });
    const [url] = await server.start();
    const ask = () =>
      fetch(url + path, {
        method: "POST",
        body: JSON.stringify({ prompt: "a", max_tokens: 10, ignore_eos: true }),
      });
    const answers = await Promise.all([ask(), ask(), ask(), ask()]);
    const statuses = answers.map(({ status }) => status).toSorted((a, b) => a - b);
    expect(statuses).toEqual([200, 200, 429, 429]);
    expect(Number(answers.find(({ status }) => status === 429)?.headers.get("retry-after"))).toBeGreaterThan(
      0,
    );
  });

  it("answers 503 when the engine dies, tells strangers nothing of faults, and goes on afterwards", async () => {
    const engine = new FakeEngine({ crashAfterTokens: 3 });
    const faulty = new FakeEngine({ failWith: new InvariantError("secret detail") });
    const lines: string[] = [];
    await using server = fakeServer({
      models: [fakeModel(engine), fakeModel(faulty, { name: "faulty" })],
      lines,
    });
    const request = { prompt: "a", model: "fake", max_tokens: 10, ignore_eos: true };
    expect((await post(server, request))[0]).toBe(503);
    const [status, message] = await post(server, { ...request, model: "faulty" });
    expect([status, message.includes("secret")]).toEqual([500, false]);
    expect(lines.join("")).toContain("secret detail");
    expect((await server.app.request("/health")).status).toBe(200);
    engine.restart();
    expect((await post(server, { ...request, max_tokens: 0, echo: true }))[0]).toBe(200);
  });

  it("lets running answers end when it is asked to end, and takes nothing new", async () => {
    const engine = new FakeEngine({ tokenMs: 10 });
    const server = fakeServer({ engine });
    const [url] = await server.start();
    const body = { prompt: "a", max_tokens: 30, ignore_eos: true };
    const running = fetch(url + path, { method: "POST", body: JSON.stringify({ ...body, stream: true }) });
    await until(() => engine.numRunning === 1, "the engine runs");
    const stopped = server.stop();
    expect((await server.app.request("/ready")).status).toBe(503);
    expect((await post(server, body))[0]).toBe(503);
    const text = await (await running).text();
    expect(text.trim().endsWith("data: [DONE]")).toBe(true);
    await stopped;
    await expect(fetch(`${url}/health`)).rejects.toThrow();
  });

  it("ends what takes longer than the time to drain", async () => {
    const engine = new FakeEngine({ tokenMs: 10 });
    const server = fakeServer({ engine, options: { drainTimeoutMs: 100 } });
    const [url] = await server.start();
    const body = JSON.stringify({ prompt: "a", max_tokens: 400, ignore_eos: true, stream: true });
    const running = await fetch(url + path, { method: "POST", body });
    const started = performance.now();
    await server.stop();
    expect(performance.now() - started).toBeLessThan(2000);
    expect(engine.numRunning).toBe(0);
    expect(await running.text().catch(() => "cut")).not.toContain("[DONE]");
  });
});

describe("what others see", () => {
  it("logs requests without prompts, unless asked for", async () => {
    for (const prompts of [false, true]) {
      const lines: string[] = [];
      await using server = fakeServer({ lines, options: { log: { prompts } } });
      const [url] = await server.start();
      await fetch(url + path, {
        method: "POST",
        // Greedy: a draw may end the answer before its second token.
        body: JSON.stringify({ prompt: "my secret", max_tokens: 2, temperature: 0 }),
      });
      await fetch(url + path, { method: "POST", body: '{"prompt": "my secret' });
      await until(() => lines.length === 2, "two log lines");
      expect(lines.join("").includes("my secret")).toBe(prompts);
      expect(JSON.parse(lines[0])).toMatchObject({
        route: path,
        status: 200,
        model: "fake",
        numNewTokens: 2,
      });
    }
  });

  it("keeps CORS off, and lets in origins that are named", async () => {
    const headers = { origin: "https://a.example", "access-control-request-method": "POST" };
    const allowed = async (options: ServerOptionsInput): Promise<string | null> => {
      await using server = fakeServer({ options });
      const answer = await server.app.request(path, { method: "OPTIONS", headers });
      return answer.headers.get("access-control-allow-origin");
    };
    expect(await allowed({})).toBeNull();
    expect(await allowed({ corsOrigins: ["https://b.example"] })).toBeNull();
    expect(await allowed({ corsOrigins: ["https://a.example"], apiKeys: ["k"] })).toBe("https://a.example");
  });

  it("names its models where one is meant, adapters too", async () => {
    const engine = new FakeEngine({ adapters: ["polite"] });
    await using server = fakeServer({ models: [fakeModel(engine), fakeModel(undefined, { name: "other" })] });
    expect((await post(server, { prompt: "a" }))[0]).toBe(400);
    expect((await post(server, { prompt: "a", model: "fake:polite", max_tokens: 1 }))[0]).toBe(200);
    expect(engine.requests.at(-1)?.adapter).toBe("polite");
    expect((await post(server, { prompt: "a", model: "fake:rude" }))[0]).toBe(404);
  });
});
