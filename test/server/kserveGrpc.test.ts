/** The inference protocol over gRPC: calls as a client makes them, statuses, and the ends of calls. */
import { once } from "node:events";
import {
  Client,
  type ClientDuplexStream,
  Metadata,
  type ServiceError,
  credentials,
  status,
} from "@grpc/grpc-js";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  type InferRequest,
  type Message,
  type Tensor,
  encodeGrpcInferRequest,
  loadInferenceService,
  parseGrpcInferResponse,
  readTexts,
  textTensor,
} from "../../src/app/kserve/index.ts";
import type { ServerOptionsInput } from "../../src/app/server/options.ts";
import { FakeEngine } from "./fakeEngine.ts";
import { fakeServer } from "./fakeServer.ts";

const methods = loadInferenceService();
const seed = 8_001;

async function serve(engine: FakeEngine, options: ServerOptionsInput = {}) {
  const server = fakeServer({ engine, options: { grpcPort: 0, ...options } });
  const [, url] = await server.start();
  const client = new Client(url.replace("grpc://", ""), credentials.createInsecure());
  return {
    server,
    client,
    async [Symbol.asyncDispose]() {
      client.close();
      await server.stop();
    },
  };
}

function call(
  client: Client,
  name: string,
  message: Message,
  { metadata = new Metadata(), deadlineMs }: { metadata?: Metadata; deadlineMs?: number } = {},
): Promise<Message> {
  const { path, requestSerialize, responseDeserialize } = methods[name];
  const options = deadlineMs === undefined ? {} : { deadline: Date.now() + deadlineMs };
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(
      path,
      requestSerialize,
      responseDeserialize,
      message,
      metadata,
      options,
      (error, answer) => {
        if (error !== null) reject(error);
        else resolve(answer ?? {});
      },
    );
  });
}

const codeOf = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => "OK",
    (error: ServiceError) => `${status[error.code]}: ${error.details}`,
  );

const request = (inputs: readonly Tensor[], more: Partial<InferRequest> = {}): Message =>
  encodeGrpcInferRequest({ modelName: "fake", modelVersion: "", parameters: {}, inputs, ...more });
const prompt = (text: string): Tensor => textTensor("prompts", [1, 1], [text]);
const count = (value: number): Tensor => ({
  name: "max_output_token",
  datatype: "INT64",
  shape: [1, 1],
  data: BigInt64Array.of(BigInt(value)),
});

function open(client: Client): ClientDuplexStream<Message, Message> {
  const { path, requestSerialize, responseDeserialize } = methods["ModelStreamInfer"];
  const stream = client.makeBidiStreamRequest(path, requestSerialize, responseDeserialize);
  stream.on("error", () => undefined);
  return stream;
}

describe("unary calls", () => {
  it("describe the server and its models", async () => {
    await using served = await serve(new FakeEngine());
    const { client } = served;
    expect(await call(client, "ServerLive", {})).toEqual({ live: true });
    expect(await call(client, "ServerReady", {})).toEqual({ ready: true });
    expect(await call(client, "ModelReady", { name: "fake", version: "1" })).toEqual({ ready: true });
    expect(await call(client, "ModelReady", { name: "nobody" })).toEqual({ ready: false });
    expect(await call(client, "ModelConfig", { name: "fake" })).toMatchObject({
      config: {
        name: "fake",
        input: expect.arrayContaining([
          expect.objectContaining({ name: "prompts", data_type: "TYPE_STRING" }),
        ]),
      },
    });
    expect(await call(client, "ModelMetadata", { name: "fake" })).toMatchObject({ versions: ["1"] });
    expect(await call(client, "RepositoryIndex", {})).toMatchObject({
      models: [{ name: "fake", state: "READY" }, { name: "fake:streaming" }],
    });
    expect(await call(client, "RepositoryModelLoad", { model_name: "fake" })).toEqual({});
    expect(await codeOf(call(client, "RepositoryModelUnload", { model_name: "fake" }))).toContain(
      "UNIMPLEMENTED",
    );
    expect(await call(client, "TraceSetting", {})).toMatchObject({
      settings: { trace_level: { value: ["OFF"] } },
    });
    expect(
      await codeOf(call(client, "LogSettings", { settings: { log_info: { bool_param: false } } })),
    ).toContain("UNIMPLEMENTED");
  });

  it("infer, with raw contents and with typed ones, and are counted", async () => {
    await using served = await serve(new FakeEngine({ answer: () => "grüß" }));
    const { client } = served;
    const raw = parseGrpcInferResponse(await call(client, "ModelInfer", request([prompt("a")], { id: "5" })));
    expect([raw.id, readTexts(raw.outputs[0])]).toEqual(["5", ["grüß"]]);
    const typed = await call(client, "ModelInfer", {
      model_name: "fake",
      inputs: [
        {
          name: "prompts",
          datatype: "BYTES",
          shape: [1, 1],
          contents: { bytes_contents: [Buffer.from("a")] },
        },
        { name: "top_k", datatype: "INT64", shape: [1, 1], contents: { int64_contents: [1] } },
        { name: "temperature", datatype: "FP32", shape: [1, 1], contents: { fp32_contents: [0.5] } },
        { name: "use_greedy", datatype: "BOOL", shape: [1, 1], contents: { bool_contents: [true] } },
      ],
    });
    expect(readTexts(parseGrpcInferResponse(typed).outputs[0])).toEqual(["grüß"]);
    const { model_stats } = await call(client, "ModelStatistics", { name: "fake" });
    expect(model_stats).toMatchObject([
      { name: "fake", inference_count: "2", inference_stats: { success: { count: "2" } } },
    ]);
  });

  it("fail with the status of what is wrong, and the server goes on", async () => {
    const engine = new FakeEngine({ maxContext: 30 });
    await using served = await serve(engine, { bodyLimitBytes: 100_000 });
    const { client } = served;
    const infer = (message: Message): Promise<string> => codeOf(call(client, "ModelInfer", message));
    expect(await infer({ ...request([prompt("a")]), model_name: "nobody" })).toContain(
      "NOT_FOUND: [server] expected a model",
    );
    expect(await infer(request([]))).toContain("INVALID_ARGUMENT: [infer] expected one input 'prompts'");
    expect(await infer(request([prompt("word ".repeat(90))]))).toContain(
      "INVALID_ARGUMENT: [infer] prompt 0: expected fewer than 30 tokens",
    );
    expect(await infer({ ...request([prompt("a")]), raw_input_contents: [] })).toContain(
      "expected 1 elements for shape [1, 1], got 0",
    );
    expect(
      await infer({ ...request([prompt("a"), count(3)]), raw_input_contents: [Buffer.alloc(3)] }),
    ).toContain("expected raw contents for each of the 2 tensors");
    expect(
      await infer({ ...request([prompt("a")]), raw_input_contents: [Buffer.from([9, 0, 0, 0, 1])] }),
    ).toContain("expected 9 bytes in element 0, got 1");
    expect(await infer(request([prompt("x".repeat(200_000))]))).toContain("RESOURCE_EXHAUSTED");
    engine.crash();
    expect(await infer(request([prompt("a")]))).toContain("UNAVAILABLE");
    engine.restart();
    expect(await infer(request([prompt("a"), count(3)]))).toBe("OK");
  });

  it("ask for keys where some are set", async () => {
    await using served = await serve(new FakeEngine(), { apiKeys: ["secret"] });
    const { client } = served;
    const metadata = new Metadata();
    metadata.set("authorization", "Bearer secret");
    expect(await codeOf(call(client, "ServerLive", {}))).toBe("OK");
    expect(await codeOf(call(client, "ModelInfer", request([prompt("a")])))).toContain("UNAUTHENTICATED");
    expect(await codeOf(call(client, "ModelInfer", request([prompt("a"), count(3)]), { metadata }))).toBe(
      "OK",
    );
    const stream = open(client);
    const { code } = await new Promise<{ code: status }>((resolve) => stream.once("status", resolve));
    expect(status[code]).toBe("UNAUTHENTICATED");
  });

  it("a deadline and a cancellation stop the generation", async () => {
    const engine = new FakeEngine({ tokenMs: 15 });
    await using served = await serve(engine);
    const { client, server } = served;
    const message = request([prompt("tell"), count(400)]);
    expect(await codeOf(call(client, "ModelInfer", message, { deadlineMs: 300 }))).toContain(
      "DEADLINE_EXCEEDED",
    );
    await expect.poll(() => engine.numRunning).toBe(0);
    expect(engine.numAborted).toBeGreaterThan(0);
    const stream = open(client);
    stream.write(message);
    await once(stream, "data");
    expect(engine.numRunning).toBe(1);
    stream.cancel();
    await expect.poll(() => engine.numRunning).toBe(0);
    expect(server.context.admission.numHeld).toBe(0);
    expect(server.context.openRequests.size).toBe(0);
  });
});

describe("streams", () => {
  it("answer several requests side by side, in parts with the last one marked; an error ends none of the others", async () => {
    await using served = await serve(new FakeEngine({ answer: (text) => `${text} and more`, tokenMs: 1 }));
    const { client } = served;
    const stream = open(client);
    const messages: Message[] = [];
    stream.on("data", (message: Message) => messages.push(message));
    stream.write(request([prompt("one")], { id: "1" }));
    stream.write(request([prompt("bad"), { ...count(1), name: "nothing" }], { id: "2" }));
    stream.write(
      request([prompt("three")], { id: "3", parameters: { triton_enable_empty_final_response: true } }),
    );
    stream.write(request([prompt("four")], { id: "4", parameters: { stream: false } }));
    stream.end();
    await once(stream, "end");
    const of = (id: string) =>
      messages.filter((message) => (message["infer_response"] as { id: string }).id === id);
    const parts = (id: string) =>
      of(id).map((message) => parseGrpcInferResponse(message["infer_response"] as Message));
    expect(of("2").map((message) => message["error_message"])).toEqual([
      expect.stringContaining("got 'nothing'"),
    ]);
    const one = parts("1");
    expect(one.length).toBeGreaterThan(1);
    expect(readTexts(one.at(-1)!.outputs[0])).toEqual(["one and more"]);
    expect(one.map(({ parameters }) => parameters?.["triton_final_response"])).toEqual([
      ...one.slice(1).map(() => false),
      true,
    ]);
    const three = parts("3");
    expect([three.at(-1)?.outputs, three.at(-1)?.parameters?.["triton_final_response"]]).toEqual([[], true]);
    expect(readTexts(three.at(-2)!.outputs[0])).toEqual(["three and more"]);
    expect(parts("4").map(({ outputs }) => readTexts(outputs[0]))).toEqual([["four and more"]]);
  });

  it("fuzzed messages from a fixed seed end in a status, never in a fault", async () => {
    await using served = await serve(new FakeEngine({ answer: () => "ok" }));
    const { client } = served;
    const { path, requestSerialize, responseDeserialize } = methods["ModelInfer"];
    const whole = requestSerialize(
      request([prompt("ab"), count(3)], { id: "1", outputs: [{ name: "outputs" }] }),
    );
    const change = fc.tuple(fc.nat(whole.length - 1), fc.nat(255));
    await fc.assert(
      fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 5 }), async (changes) => {
        const bytes = Buffer.from(whole);
        for (const [at, value] of changes) bytes[at] = value;
        const code = await new Promise<string>((resolve) => {
          client.makeUnaryRequest(
            path,
            (raw: Buffer) => raw,
            responseDeserialize,
            bytes,
            (error) => resolve(error === null ? "OK" : `${status[error.code]} ${error.details}`),
          );
        });
        // A message that is no protocol buffer is grpc-js' to refuse: it says INTERNAL, and that it could not be read.
        if (code.startsWith("INTERNAL")) expect(code).toMatch(/deserializ/i);
        else expect(code).toMatch(/^(OK|INVALID_ARGUMENT|NOT_FOUND)/);
      }),
      { seed, numRuns: 200 },
    );
    expect(await codeOf(call(client, "ServerLive", {}))).toBe("OK");
  });
});
