/** The KServe v2 protocol over HTTP: what clients of the field send, and what they must never be able to do. */
import { deflateSync, gzipSync } from "node:zlib";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  type Tensor,
  encodeInferRequest,
  headerLengthName,
  parseHeaderLength,
  parseInferResponse,
  readNumbers,
  readTexts,
  textTensor,
} from "../../src/app/kserve/index.ts";
import type { NautilusServer } from "../../src/app/server/server.ts";
import { FakeEngine } from "./fakeEngine.ts";
import { fakeModel, fakeServer } from "./fakeServer.ts";

const seed = 8_000;

const int64 = (name: string, ...values: number[]): Tensor => ({
  name,
  datatype: "INT64",
  shape: [values.length, 1],
  data: BigInt64Array.from(values, BigInt),
});
const fp32 = (name: string, ...values: number[]): Tensor => ({
  name,
  datatype: "FP32",
  shape: [values.length, 1],
  data: Float32Array.from(values),
});
const bool = (name: string, ...values: boolean[]): Tensor => ({
  name,
  datatype: "BOOL",
  shape: [values.length, 1],
  data: Uint8Array.from(values, Number),
});
const texts = (name: string, ...values: string[]): Tensor => textTensor(name, [values.length, 1], values);

/** An engine that answers every prompt with the same words. */
const saying = (answer: string, more: object = {}): FakeEngine =>
  new FakeEngine({ answer: () => answer, ...more });

async function post(
  server: NautilusServer,
  inputs: readonly Tensor[],
  { outputs, model = "fake" }: { outputs?: string[]; model?: string } = {},
): Promise<{ status: number; tensors: Record<string, Tensor>; error: string | undefined }> {
  const body = encodeInferRequest({
    id: "7",
    parameters: {},
    inputs,
    ...(outputs === undefined ? {} : { outputs: outputs.map((name) => ({ name })) }),
  });
  const response = await server.app.request(`/v2/models/${model}/infer`, {
    method: "POST",
    body: new Uint8Array(body.bytes),
    // A request without tensors has no binary part, and no header that says where it begins.
    headers: body.headerLength === undefined ? {} : { [headerLengthName]: String(body.headerLength) },
  });
  const bytes = new Uint8Array(await response.arrayBuffer());
  if (response.status !== 200) {
    const { error } = JSON.parse(new TextDecoder().decode(bytes)) as { error: string };
    return { status: response.status, tensors: {}, error };
  }
  const headerLength = parseHeaderLength(response.headers.get(headerLengthName) ?? undefined, bytes.length);
  const answer = parseInferResponse({ bytes, headerLength });
  expect([answer.modelName, answer.modelVersion, answer.id]).toEqual([model, "1", "7"]);
  return {
    status: 200,
    tensors: Object.fromEntries(answer.outputs.map((tensor) => [tensor.name, tensor])),
    error: undefined,
  };
}

const postJson = async (
  server: NautilusServer,
  path: string,
  value: unknown,
): Promise<{ status: number; value: Record<string, unknown> }> => {
  const body = typeof value === "string" ? value : JSON.stringify(value);
  const response = await server.app.request(path, { method: "POST", body });
  return { status: response.status, value: (await response.json()) as Record<string, unknown> };
};

describe("what is asked before inference", () => {
  it("health, readiness, metadata, configuration, repository, statistics", async () => {
    await using server = fakeServer();
    const get = async (path: string): Promise<Response> => server.app.request(path);
    for (const path of [
      "/v2/health/live",
      "/v2/health/ready",
      "/v2/models/fake/ready",
      "/v2/models/fake/versions/1/ready",
    ])
      expect([path, (await get(path)).status, await (await get(path)).text()]).toEqual([path, 200, ""]);
    expect((await get("/v2/models/other/ready")).status).toBe(400);
    expect((await get("/v2/models/fake/versions/2/ready")).status).toBe(400);
    expect(await (await get("/v2")).json()).toMatchObject({
      name: "nautilus",
      extensions: expect.arrayContaining(["binary_tensor_data"]),
    });
    const config = (await (await get("/v2/models/fake/config")).json()) as {
      max_batch_size: number;
      input: object[];
      output: object[];
    };
    expect(config.max_batch_size).toBeGreaterThan(0);
    expect(config.input[0]).toEqual({
      name: "prompts",
      data_type: "TYPE_STRING",
      dims: [-1],
      optional: false,
    });
    expect(config.output[0]).toEqual({ name: "outputs", data_type: "TYPE_STRING", dims: [1] });
    expect(await (await get("/v2/models/fake:streaming/config")).json()).toMatchObject({
      model_transaction_policy: { decoupled: true },
    });
    expect(await (await get("/v2/models/fake")).json()).toMatchObject({ name: "fake", versions: ["1"] });
    const unknown = await get("/v2/models/other/config");
    expect([unknown.status, await unknown.json()]).toEqual([
      404,
      { error: expect.stringContaining("got 'other' (it serves fake)") },
    ]);
    const index = await server.app.request("/v2/repository/index", { method: "POST" });
    expect(await index.json()).toEqual([
      { name: "fake", version: "1", state: "READY", reason: "" },
      { name: "fake:streaming", version: "1", state: "READY", reason: "" },
    ]);
    expect((await server.app.request("/v2/repository/models/fake/load", { method: "POST" })).status).toBe(
      200,
    );
    expect((await server.app.request("/v2/repository/models/none/load", { method: "POST" })).status).toBe(
      404,
    );
    expect((await server.app.request("/v2/repository/models/fake/unload", { method: "POST" })).status).toBe(
      501,
    );
    expect((await get("/v2/logging")).status).toBe(200);
    expect((await get("/v2/trace/setting")).status).toBe(200);
  });
});

describe("tensor sets of NeMo's clients", () => {
  const prompts = texts("prompts", "The meaning of life is", "Ünï");

  it("the model card's: five tensors, one answer a prompt, whatever the alphabet", async () => {
    const engine = saying("42 é 漢字");
    await using server = fakeServer({ engine });
    const inputs = [
      prompts,
      int64("max_output_token", 200, 200),
      int64("top_k", 1, 1),
      fp32("top_p", 0, 0),
      fp32("temperature", 0.1, 0.1),
    ];
    const { tensors } = await post(server, inputs, { outputs: ["outputs", "sentences"] });
    expect(tensors["outputs"].shape).toEqual([2, 1]);
    expect(readTexts(tensors["outputs"])).toEqual(["42 é 漢字", "42 é 漢字"]);
    expect(readTexts(tensors["sentences"])).toEqual(["42 é 漢字", "42 é 漢字"]);
    expect(engine.requests).toHaveLength(2);
    expect(engine.requests[0].prompt).toEqual([...engine.tokenizer.encode("The meaning of life is")]);
    expect(engine.requests[0].sampling).toMatchObject({ maxTokens: 200, topK: 1, topP: 0, stop: [] });
  });

  it("every later one is taken, with its meaning", async () => {
    const engine = saying("one two STOP three", { adapters: ["law"] });
    await using server = fakeServer({ engine });
    const cases: [Tensor[], object, string?][] = [
      [
        [int64("max_output_len", 9, 9), int64("random_seed", 5, 5), fp32("repetition_penalty", 1.5, 1.5)],
        { maxTokens: 9, seed: 5, repetitionPenalty: 1.5 },
      ],
      [[int64("max_output_len", 9, 9), int64("min_output_len", 9, 9)], { maxTokens: 9, minTokens: 9 }],
      [[texts("stop_words_list", "STOP")], { stop: ["STOP"] }, "one two "],
      [
        [texts("end_strings", "<|endoftext|>", "STOP", "x")],
        { stop: ["<|endoftext|>", "STOP", "x"] },
        "one two ",
      ],
      [[textTensor("stop_words_list", [2, 2], ["STOP", "three", "two", "x"])], { stop: ["STOP", "three"] }],
      [
        [bool("use_greedy", true, true), int64("max_length", 7, 7), int64("min_length", 1, 1)],
        { topK: 1, maxTokens: 7, minTokens: 1 },
      ],
      [[bool("use_greedy", false, false)], { topK: 0, temperature: 1 }],
      [[fp32("top_p", 0.9, 0.9)], { topK: 0, topP: Math.fround(0.9) }],
      [
        [bool("output_context_logits", false, false), bool("output_generation_logits", false, false)],
        { topK: 1 },
      ],
      [
        [
          bool("apply_chat_template", false, false),
          bool("echo", false, false),
          int64("n_top_logprobs", 0, 0),
        ],
        { topK: 1 },
      ],
      [
        [
          int64("max_tokens", 4, 4),
          int64("min_tokens", 2, 2),
          int64("seed", 3, 3),
          fp32("temperature", 0.5, 0.5),
        ],
        { maxTokens: 4, minTokens: 2, seed: 3, topK: 0, temperature: 0.5 },
      ],
      [[texts("lora_uids", "law", "law")], { topK: 1 }],
      [
        [texts("task_id", "law", "law"), int64("max_batch_size", 8, 8), fp32("no_repeat_ngram_size", 0, 0)],
        { topK: 1 },
      ],
    ];
    for (const [inputs, sampling, text] of cases) {
      engine.requests.length = 0;
      const { status, tensors, error } = await post(server, [prompts, ...inputs], { outputs: ["outputs"] });
      expect([status, error]).toEqual([200, undefined]);
      expect(engine.requests[0].sampling).toMatchObject(sampling);
      if (text !== undefined) expect(readTexts(tensors["outputs"])[0]).toBe(text);
    }
    engine.requests.length = 0;
    await post(server, [prompts, texts("lora_uids", "law")]);
    expect(engine.requests[0].adapter).toBe("law");
  });

  it("an answer ends where the context does, and prompts may be one-dimensional", async () => {
    const engine = new FakeEngine({ maxContext: 40 });
    await using server = fakeServer({ engine });
    const { tensors } = await post(server, [
      textTensor("prompts", [1], ["hello"]),
      int64("max_output_token", 512),
      bool("use_greedy", true),
    ]);
    expect(tensors["outputs"].shape).toEqual([1]);
    const { prompt, sampling } = engine.requests[0];
    expect(prompt.length + sampling.maxTokens).toBe(40);
  });

  it("log-probabilities: NeMo's numbers and JSON, vLLM's JSON, whole distributions", async () => {
    const engine = saying("ab");
    await using server = fakeServer({ engine });
    const one = texts("prompts", "xy");
    const numbers = await post(server, [one, bool("compute_logprob", true), int64("n_top_logprobs", 2)]);
    const { requests } = engine;
    expect(requests[0]).toMatchObject({ numLogprobs: 2, promptLogprobs: undefined });
    const plain = readNumbers(numbers.tensors["log_probs"]);
    const top = JSON.parse(readTexts(numbers.tensors["top_logprobs"])[0]) as Record<string, number>[];
    expect(plain.length).toBe(top.length);
    for (const [i, entry] of top.entries())
      expect(Math.fround(Math.max(...Object.values(entry)))).toBe(plain[i]);
    expect(top.map((entry) => Object.keys(entry)[0]).join("")).toBe("ab");
    const echoed = await post(server, [one, bool("compute_logprob", true), bool("echo", true)], {
      outputs: ["outputs", "log_probs"],
    });
    expect(readTexts(echoed.tensors["outputs"])).toEqual(["xyab"]);
    expect(readNumbers(echoed.tensors["log_probs"]).slice(requests[1].prompt.length - 1)).toEqual(plain);
    const vllm = await post(server, [one, int64("n_log_probs", 1), int64("n_prompt_log_probs", 1)]);
    const perToken = readTexts(vllm.tensors["log_probs"]).map(
      (text) => JSON.parse(text) as Record<string, number>,
    );
    expect(perToken.map((entry) => Math.fround(Object.values(entry)[0]))).toEqual(plain);
    expect(vllm.tensors["prompt_log_probs"].shape).toEqual([1, requests[0].prompt.length - 1]);
    const logits = await post(server, [
      one,
      bool("output_generation_logits", true),
      bool("output_context_logits", true),
      int64("max_output_len", 3),
    ]);
    const { vocabSize } = engine.info;
    expect(logits.tensors["generation_logits"].shape).toEqual([1, 1, plain.length, vocabSize]);
    expect(logits.tensors["context_logits"].shape).toEqual([1, requests[0].prompt.length, vocabSize]);
    const row = readNumbers(logits.tensors["generation_logits"]).slice(0, vocabSize);
    expect(row.reduce((sum, value) => sum + Math.exp(value), 0)).toBeCloseTo(1, 4);
  });

  it("a bad word is not said, on an engine that knows of none", async () => {
    const engine = new FakeEngine();
    await using server = fakeServer({ engine });
    const run = async (...more: Tensor[]): Promise<string[]> => {
      const inputs = [
        texts("prompts", "tell me"),
        int64("max_output_len", 40),
        int64("n_log_probs", 0),
        ...more,
      ];
      const { tensors } = await post(server, inputs, { outputs: ["log_probs"] });
      return readTexts(tensors["log_probs"]).flatMap((text) => Object.keys(JSON.parse(text) as object));
    };
    const free = await run();
    const word = free.find((text, i) => i > 2 && engine.tokenizer.encode(text).length === 1) ?? "";
    const kept = await run(texts("bad_words_list", word));
    const at = free.indexOf(word);
    expect(kept.slice(0, at)).toEqual(free.slice(0, at));
    expect(kept).toHaveLength(40);
    expect(kept).not.toContain(word);
  });

  it("conversations by the model's template", async () => {
    const engine = saying("hi");
    const rendered: unknown[] = [];
    const chatTemplates = { render: (messages: unknown) => (rendered.push(messages), "rendered") } as never;
    await using server = fakeServer({ models: [fakeModel(engine, { chatTemplates })] });
    const messages = [{ role: "user", content: "hello" }];
    await post(server, [texts("prompts", JSON.stringify(messages)), bool("apply_chat_template", true)]);
    await post(server, [texts("prompts", "hello"), bool("apply_chat_template", true)]);
    expect(rendered).toEqual([messages, messages]);
    expect(engine.requests[0].prompt).toEqual([...engine.tokenizer.encode("rendered")]);
    const broken = await post(server, [texts("prompts", '[{"role":3}]'), bool("apply_chat_template", true)]);
    expect(broken.status).toBe(400);
  });
});

describe("forms of bodies", () => {
  const json = { id: "a", inputs: [{ name: "prompts", shape: [1, 1], datatype: "BYTES", data: [["grüß"]] }] };

  it("plain JSON is answered in JSON, unless it asks for raw tensors", async () => {
    await using server = fakeServer({ engine: saying("göttlich") });
    const plain = await postJson(server, "/v2/models/fake/infer", json);
    expect(plain.value).toEqual({
      id: "a",
      model_name: "fake",
      model_version: "1",
      outputs: [{ name: "outputs", datatype: "BYTES", shape: [1, 1], data: ["göttlich"] }],
    });
    const raw = await server.app.request("/v2/models/fake/infer", {
      method: "POST",
      body: JSON.stringify({ ...json, outputs: [{ name: "outputs", parameters: { binary_data: true } }] }),
    });
    expect(raw.headers.get("content-type")).toBe("application/octet-stream");
    expect(Number(raw.headers.get(headerLengthName))).toBeGreaterThan(0);
  });

  it("a raw body with a header of no length is a prompt", async () => {
    const engine = saying("yes");
    await using server = fakeServer({ engine });
    const response = await server.app.request("/v2/models/fake/infer", {
      method: "POST",
      body: "Is it?",
      headers: { [headerLengthName]: "0" },
    });
    expect(response.status).toBe(200);
    expect(engine.requests[0].prompt).toEqual([...engine.tokenizer.encode("Is it?")]);
  });

  it("may be compressed both ways, but not into a bomb", async () => {
    await using server = fakeServer({ engine: saying("x"), options: { bodyLimitBytes: 100_000 } });
    const send = (body: Uint8Array, encoding: string): Response | Promise<Response> =>
      server.app.request("/v2/models/fake/infer", {
        method: "POST",
        body: new Uint8Array(body),
        headers: { "content-encoding": encoding },
      });
    expect((await send(gzipSync(JSON.stringify(json)), "gzip")).status).toBe(200);
    expect((await send(deflateSync(JSON.stringify(json)), "deflate")).status).toBe(200);
    expect((await send(Buffer.from("no gzip"), "gzip")).status).toBe(400);
    expect((await send(gzipSync(Buffer.alloc(50_000_000)), "gzip")).status).toBe(413);
    expect((await send(Buffer.from("x"), "zstd")).status).toBe(415);
    const answered = await server.app.request("/v2/models/fake/generate", {
      method: "POST",
      body: JSON.stringify({ text_input: "a", id: "q" }),
    });
    expect(await answered.json()).toEqual({
      id: "q",
      model_name: "fake",
      model_version: "1",
      text_output: "x",
    });
  });

  it("generate takes scalars, lists, and options under 'parameters'", async () => {
    const engine = saying("one two");
    await using server = fakeServer({ engine });
    const list = await postJson(server, "/v2/models/fake/generate", {
      prompts: ["a", "b"],
      max_output_len: 5,
      parameters: { temperature: 0.5, unknown: 1 },
    });
    expect(list.value).toMatchObject({ outputs: ["one two", "one two"] });
    expect(engine.requests[1].sampling).toMatchObject({ maxTokens: 5, temperature: 0.5 });
    const stopped = await postJson(server, "/v2/models/fake/generate", {
      text_input: "a",
      parameters: { stop: [" two", "!"] },
    });
    expect(stopped.value).toMatchObject({ text_output: "one" });
    const single = await postJson(server, "/v2/models/fake/generate", { text_input: "a", stop: "e" });
    expect(single.value).toMatchObject({ text_output: "on" });
    const whole = await server.app.request("/v2/models/fake/generate_stream", {
      method: "POST",
      body: JSON.stringify({ text_input: "a" }),
    });
    expect(whole.headers.get("content-type")).toContain("text/event-stream");
    const events = (await whole.text()).split("\n\n").filter((event) => event !== "");
    const parts = events.map(
      (event) => (JSON.parse(event.slice("data: ".length)) as { text_output: string }).text_output,
    );
    expect(parts.length).toBeGreaterThan(1);
    expect(parts.join("")).toBe("one two");
  });
});

describe("bad input", () => {
  it("is answered in the protocol's shape, and the server goes on", async () => {
    const engine = saying("fine", { maxContext: 30 });
    await using server = fakeServer({ engine, options: { bodyLimitBytes: 1_000_000 } });
    const good = texts("prompts", "hello");
    const cases: [Tensor[], number, string][] = [
      [[], 400, "expected one input 'prompts'"],
      [[good, good], 400, "'prompts': expected one tensor, got several"],
      [[good, int64("top_kk", 1)], 400, "got 'top_kk' (did you mean 'top_k'?)"],
      [[good, fp32("temperature", Number.NaN)], 400, "'temperature': expected finite numbers, got NaN"],
      [[good, fp32("temperature", -1)], 400, "'temperature': expected at least 0, got -1"],
      [[good, fp32("top_p", 1.5)], 400, "'top_p': expected 0 to 1, got 1.5"],
      [[good, int64("top_k", -3)], 400, "'top_k': expected at least 0, got -3"],
      [[good, int64("max_output_token", 0)], 400, "'max_output_token': expected at least 1, got 0"],
      [[good, int64("max_output_token", 4), int64("max_tokens", 4)], 400, "which mean the same"],
      [[good, int64("random_seed", -1)], 400, "'random_seed': expected at least 0"],
      [
        [good, int64("top_k", 1, 2, 3)],
        400,
        "'top_k': expected one value, or one for each of 1 prompts, got shape [3, 1]",
      ],
      [[good, texts("top_k", "1")], 400, "'top_k': expected an integer datatype, got BYTES"],
      [[good, fp32("top_k", 1)], 400, "'top_k': expected an integer datatype, got FP32"],
      [[good, int64("use_greedy", 1)], 400, "'use_greedy': expected BOOL, got INT64"],
      [[int64("prompts", 3)], 400, "'prompts': expected BYTES, got INT64"],
      [
        [textTensor("prompts", [2, 2], ["a", "b", "c", "d"])],
        400,
        "expected shape [number of prompts, 1], got [2, 2]",
      ],
      [[textTensor("prompts", [0, 1], [])], 400, "expected a prompt, got none"],
      [
        [{ ...good, datatype: "BYTES", data: [new Uint8Array([0xff, 0xfe])] }],
        400,
        "expected UTF-8 in element 0",
      ],
      [
        [texts("prompts", "long ".repeat(60))],
        400,
        "expected fewer than 30 tokens, the model's context, got",
      ],
      [[good, texts("lora_uids", "none")], 400, "expected a loaded adapter, got 'none'"],
      [[good, bool("add_BOS", true), int64("beam_width", 4)], 400, "'beam_width': expected 1, got 4"],
      [[good, bool("apply_chat_template", true)], 400, "expected a model with a chat template"],
      [[good, bool("all_probs", true)], 400, "'all_probs': expected false"],
    ];
    for (const [inputs, status, message] of cases) {
      const answer = await post(server, inputs);
      expect([answer.status, answer.error]).toEqual([status, expect.stringContaining(message)]);
    }
    expect(await post(server, [good], { outputs: ["nothing"] })).toMatchObject({
      status: 400,
      error: expect.stringContaining("expected an output of the model, got 'nothing'"),
    });
    expect(await post(server, [good], { model: "other" })).toMatchObject({ status: 404 });
    expect(engine.requests).toHaveLength(0);
    expect((await post(server, [good])).status).toBe(200);
    expect(server.context.admission.numHeld).toBe(0);
  });

  it("malformed bodies, sizes that lie, bodies too large", async () => {
    await using server = fakeServer({ options: { bodyLimitBytes: 1_000_000 } });
    const input = { name: "prompts", shape: [1, 1], datatype: "BYTES" };
    const bodies: [unknown, string][] = [
      ["{", "expected JSON"],
      ["[]", "expected object"],
      [{ inputs: {} }, "inputs: expected array"],
      [{ inputs: [{ ...input, shape: [-1] }] }, "inputs.0.shape.0: expected"],
      [{ inputs: [{ ...input, datatype: "STRING", data: ["a"] }] }, "expected a datatype such as BYTES"],
      [{ inputs: [{ ...input, shape: [3, 1], data: ["a"] }] }, "expected 3 elements for shape [3, 1], got 1"],
      [
        { inputs: [{ ...input, parameters: { binary_data_size: 10 } }] },
        "expected a binary_data_size of at most the 0 bytes left",
      ],
      [{ inputs: [{ ...input, parameters: { shared_memory_region: "x" } }] }, "shared memory"],
      [
        { inputs: [{ ...input, data: ["a"] }], parameters: { timeout: "soon" } },
        "'timeout': expected microseconds",
      ],
      [
        {
          inputs: [{ ...input, data: ["a"] }],
          outputs: [{ name: "outputs", parameters: { classification: 3 } }],
        },
        "classification",
      ],
    ];
    for (const [body, message] of bodies) {
      const { status, value } = await postJson(server, "/v2/models/fake/infer", body);
      expect([status, value]).toEqual([400, { error: expect.stringContaining(message) }]);
    }
    const large = await postJson(server, "/v2/models/fake/infer", `"${"x".repeat(1_000_001)}"`);
    expect([large.status, large.value["error"]]).toEqual([
      413,
      expect.stringContaining("at most 1000000 bytes"),
    ]);
    expect((await postJson(server, "/v2/models/fake/generate", "[1]")).status).toBe(400);
    expect((await postJson(server, "/v2/models/fake/generate_stream", { prompts: 3 })).status).toBe(400);
  });

  it("a hundred megabytes are refused over a socket without being read", async () => {
    await using server = fakeServer();
    const [url] = await server.start();
    const response = await fetch(`${url}/v2/models/fake/infer`, {
      method: "POST",
      body: new Uint8Array(100_000_000),
    }).catch((error: Error) => error);
    // The server answers and closes; a client that is still writing may hear of the closing first.
    if (response instanceof Response) expect(response.status).toBe(413);
    expect((await fetch(`${url}/v2/health/ready`)).status).toBe(200);
  });

  it("fuzzed requests from a fixed seed: a status of the protocol each, no fault of the server", async () => {
    const lines: string[] = [];
    await using server = fakeServer({ engine: saying("ok"), lines });
    const { bytes, headerLength } = encodeInferRequest({
      id: "1",
      parameters: {},
      inputs: [texts("prompts", "ab"), int64("top_k", 1), fp32("temperature", 0.1)],
      outputs: [{ name: "outputs" }],
    });
    const change = fc.tuple(fc.nat(bytes.length - 1), fc.nat(255));
    await fc.assert(
      fc.asyncProperty(
        fc.array(change, { minLength: 1, maxLength: 6 }),
        fc.nat(bytes.length),
        fc.boolean(),
        async (changes, length, isCut) => {
          const body = new Uint8Array(bytes);
          for (const [at, value] of changes) body[at] = value;
          const response = await server.app.request("/v2/models/fake/infer", {
            method: "POST",
            body: isCut ? body.slice(0, length) : body,
            headers: {
              [headerLengthName]: String(isCut ? Math.min(length, headerLength ?? 0) : headerLength),
            },
          });
          expect([200, 400]).toContain(response.status);
          await response.arrayBuffer();
        },
      ),
      { seed, numRuns: 400 },
    );
    expect(lines.filter((line) => line.includes('"status":500'))).toEqual([]);
  });
});

describe("the end of requests", () => {
  it("a client that goes away, a deadline, a dead engine", async () => {
    const engine = new FakeEngine({ tokenMs: 20 });
    await using server = fakeServer({ engine });
    const [url] = await server.start();
    const body = JSON.stringify({ prompts: "tell", max_output_token: 400 });
    const controller = new AbortController();
    const gone = fetch(`${url}/v2/models/fake/generate_stream`, {
      method: "POST",
      body,
      signal: controller.signal,
    });
    const reader = (await gone).body!.getReader();
    await reader.read();
    controller.abort();
    await reader.closed.catch(() => undefined);
    await expect.poll(() => engine.numRunning, { timeout: 5000 }).toBe(0);
    expect(engine.numAborted).toBeGreaterThan(0);
    const late = await postJson(server, "/v2/models/fake/generate", {
      prompts: "tell",
      max_output_token: 400,
      timeout: 60_000,
    });
    expect([late.status, late.value["error"]]).toEqual([504, expect.stringContaining("within 60 ms")]);
    engine.crash();
    const dead = await postJson(server, "/v2/models/fake/generate", { prompts: "tell" });
    expect([dead.status, Object.keys(dead.value)]).toEqual([503, ["error"]]);
    engine.restart();
    const stats = (await (await server.app.request("/v2/models/fake/stats")).json()) as {
      model_stats: { inference_stats: { fail: { count: number } } }[];
    };
    expect(stats.model_stats[0].inference_stats.fail.count).toBe(3);
    expect(server.context.admission.numHeld).toBe(0);
  });

  it("statistics tell waiting from working", async () => {
    await using server = fakeServer({
      engine: new FakeEngine({ tokenMs: 10 }),
      options: { maxConcurrent: 1 },
    });
    const ask = () => postJson(server, "/v2/models/fake/generate", { prompts: "tell", max_output_token: 10 });
    await Promise.all([ask(), ask()]);
    const stats = (await (await server.app.request("/v2/models/fake/stats")).json()) as {
      model_stats: { inference_stats: Record<string, { count: number; ns: number }> }[];
    };
    const { success, queue, compute_infer: infer } = stats.model_stats[0].inference_stats;
    expect([success.count, queue.count, infer.count]).toEqual([2, 2, 2]);
    expect(queue.ns + infer.ns).toBe(success.ns);
    // One of them waited for the other's ten tokens, and each was at work for as long.
    expect(queue.ns).toBeGreaterThan(90e6);
    expect(infer.ns).toBeGreaterThan(180e6);
  });
});
