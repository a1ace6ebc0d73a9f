/** NeMo's query client of ours against our server: HTTP, gRPC streams, the shell; and what goes wrong on the way. */
import { execFile } from "node:child_process";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { expect, it, describe } from "vitest";
import { NemoQuery } from "../../src/app/client/index.ts";
import { FakeEngine } from "./fakeEngine.ts";
import { fakeServer } from "./fakeServer.ts";

const run = promisify(execFile);

const addressOf = (url: string): string => url.replace(/^\w+:\/\//, "");

async function withServer<Result>(
  engine: FakeEngine,
  body: (urls: { url: string; grpc_url: string }) => Promise<Result>,
): Promise<Result> {
  await using server = fakeServer({ engine, options: { grpcPort: 0 } });
  const urls = await server.start();
  const [http, grpc] = ["http", "grpc"].map((scheme) => urls.find((url) => url.startsWith(scheme)) ?? "");
  return await body({ url: addressOf(http), grpc_url: addressOf(grpc) });
}

describe("NemoQuery", () => {
  it("answers the model card's call with rows of one text", async () => {
    const engine = new FakeEngine({ answer: () => " 42, größer als 41" });
    await withServer(engine, async ({ url }) => {
      const nq = new NemoQuery({ url, model_name: "fake" });
      const output = await nq.query_llm({
        prompts: ["The meaning of life is"],
        max_output_token: 200,
        top_k: 1,
        top_p: 0.0,
        temperature: 0.1,
      });
      expect(output).toEqual([[" 42, größer als 41"]]);
      const [{ sampling }] = engine.requests;
      expect(sampling).toMatchObject({ maxTokens: 200, topK: 1, topP: 0 });
      expect(sampling.temperature).toBeCloseTo(0.1, 6);
    });
  });

  it("sends what else the caller gives, for each of several prompts", async () => {
    const engine = new FakeEngine();
    await withServer(engine, async ({ url }) => {
      const nq = new NemoQuery({ url, model_name: "fake" });
      const asked = { prompts: ["one", "two", "three"], max_output_len: 5, top_k: 0, random_seed: 7 };
      const first = await nq.query_llm({
        ...asked,
        stop_words_list: ["END", "ENDE"],
        repetition_penalty: 1.5,
      });
      expect(first.map((row) => row.length)).toEqual([1, 1, 1]);
      expect(engine.requests.map(({ sampling }) => sampling)).toEqual(
        Array.from({ length: 3 }, () =>
          expect.objectContaining({ maxTokens: 5, topK: 0, repetitionPenalty: 1.5, stop: ["END", "ENDE"] }),
        ),
      );
      expect(await nq.query_llm(asked)).toEqual(await nq.query_llm(asked));
    });
  });

  it("streams over gRPC what it gives unstreamed, and stops the generation when left", async () => {
    const engine = new FakeEngine({ tokenMs: 2 });
    await withServer(engine, async ({ url, grpc_url }) => {
      const nq = new NemoQuery({ url, model_name: "fake" });
      const asked = { prompts: ["tell me"], max_output_token: 30 };
      const parts: string[] = [];
      for await (const [[answer]] of nq.query_llm_streaming({ ...asked, grpc_url })) parts.push(answer);
      expect(parts.length).toBeGreaterThan(5);
      expect(parts.every((part, i) => i === 0 || part.startsWith(parts[i - 1]))).toBe(true);
      expect([[parts.at(-1)]]).toEqual(await nq.query_llm(asked));
      for await (const part of nq.query_llm_streaming({ ...asked, max_output_token: 3000, grpc_url })) {
        expect(part.length).toBe(1);
        break;
      }
      await expect.poll(() => engine.numRunning, { timeout: 5000 }).toBe(0);
      expect(engine.numAborted).toBe(1);
    });
  });

  it("says what is wrong: nobody there, no such model, a refusal, a model that is none of language", async () => {
    await expect(
      new NemoQuery({ url: "localhost:1", model_name: "m" }).query_llm({ prompts: ["a"], init_timeout: 0 }),
    ).rejects.toThrow(/expected model 'm' at http:\/\/localhost:1 to be ready within 0 s/);
    expect(() => new NemoQuery({ url: "grpc://localhost:1", model_name: "m" })).toThrow(
      /query_llm_streaming/,
    );
    await withServer(new FakeEngine(), async ({ url }) => {
      const asked = { prompts: ["a"], init_timeout: 0 };
      await expect(new NemoQuery({ url, model_name: "other" }).query_llm(asked)).rejects.toThrow(
        /status 4\d\d from \/v2\/models\/other\/ready \(the server has .*\bfake\b/,
      );
      const nq = new NemoQuery({ url, model_name: "fake" });
      await expect(nq.query_llm({ ...asked, temperature: -1 })).rejects.toThrow(
        /status 400: .*'temperature': expected at least 0, got -1/,
      );
      await expect(nq.query_llm({ ...asked, max_output_token: 1.5 })).rejects.toThrow(
        /whole number, got 1.5/,
      );
      await expect(nq.query_llm({ prompts: [] })).rejects.toThrow(/at least one prompt/);
    });
  });

  it("talks to a Triton model by that model's own names and datatypes", async () => {
    const asked: string[] = [];
    const bodies: Buffer[] = [];
    const tritonConfig = {
      name: "trt",
      max_batch_size: 8,
      input: [
        { name: "text_input", data_type: "TYPE_STRING", dims: [1] },
        { name: "max_tokens", data_type: "TYPE_UINT32", dims: [1] },
        { name: "top_k", data_type: "TYPE_INT32", dims: [1] },
        { name: "top_p", data_type: "TYPE_FP32", dims: [1] },
        { name: "temperature", data_type: "TYPE_FP32", dims: [1] },
      ],
      output: [{ name: "text_output", data_type: "TYPE_STRING", dims: [-1] }],
    };
    const triton = createServer((request, response) => {
      asked.push(`${request.method} ${request.url}`);
      const chunks: Buffer[] = [];
      request.on("data", (chunk: Buffer) => chunks.push(chunk));
      request.on("end", () => {
        if (request.url?.endsWith("/config") === true) response.end(JSON.stringify(tritonConfig));
        else if (request.method === "POST") {
          bodies.push(Buffer.concat(chunks));
          const output = { name: "text_output", datatype: "BYTES", shape: [1, 1], data: ["from Triton"] };
          response.end(JSON.stringify({ model_name: "trt", model_version: "1", outputs: [output] }));
        } else response.end();
      });
    });
    await new Promise<void>((resolve) => triton.listen(0, "127.0.0.1", resolve));
    try {
      const { port } = triton.address() as AddressInfo;
      const nq = new NemoQuery({ url: `127.0.0.1:${port}`, model_name: "trt" });
      expect(await nq.query_llm({ prompts: ["hi"], max_output_token: 9 })).toEqual([["from Triton"]]);
      expect(asked).toEqual([
        "GET /v2/health/live",
        "GET /v2/health/ready",
        "GET /v2/models/trt/ready",
        "GET /v2/models/trt/config",
        "POST /v2/models/trt/infer",
      ]);
      const text = bodies[0].toString("latin1");
      const end = text.lastIndexOf("}") + 1;
      const header = JSON.parse(text.slice(0, end)) as {
        inputs: { name: string; datatype: string; shape: number[] }[];
      };
      expect(header.inputs.map(({ name, datatype, shape }) => [name, datatype, shape])).toEqual([
        ["text_input", "BYTES", [1, 1]],
        ["max_tokens", "UINT32", [1, 1]],
        ["top_k", "INT32", [1, 1]],
        ["top_p", "FP32", [1, 1]],
        ["temperature", "FP32", [1, 1]],
      ]);
      // A length and "hi", then 9, 1, 0.0, 1.0: little-endian.
      expect(bodies[0].subarray(end).toString("hex")).toBe("0200000068690900000001000000000000000000803f");
    } finally {
      triton.close();
    }
  });
});

describe("nautilus query", () => {
  const nautilus = (...words: string[]) => run(process.execPath, ["bin/nautilus.js", "query", ...words]);

  it("asks the server's only model, whole and streamed", async () => {
    await withServer(new FakeEngine({ answer: () => "from the server" }), async ({ url, grpc_url }) => {
      const asked = ["--url", url, "--prompt", "hello"];
      expect((await nautilus(...asked)).stdout).toBe("from the server\n");
      expect(JSON.parse((await nautilus(...asked, "--json")).stdout)).toEqual({
        model: "fake",
        outputs: [["from the server"]],
      });
      expect((await nautilus(...asked, "--stream", "--grpc-url", grpc_url)).stdout).toBe("from the server\n");
    });
  });

  it("waits for a server that is being started", async () => {
    const holder = createServer();
    await new Promise<void>((resolve) => holder.listen(0, "127.0.0.1", resolve));
    const { port } = holder.address() as AddressInfo;
    await new Promise((resolve) => holder.close(resolve));
    const asked = nautilus("--url", `127.0.0.1:${port}`, "--prompt", "hello", "--init-timeout", "30");
    // By then the program has found nobody there.
    await delay(2000);
    await using server = fakeServer({ engine: new FakeEngine({ answer: () => "late" }), options: { port } });
    await server.start();
    expect((await asked).stdout).toBe("late\n");
  });

  it("says which key it lacks", async () => {
    await using server = fakeServer({ options: { apiKeys: ["k"] } });
    const [url] = await server.start();
    await expect(nautilus("--url", url, "--prompt", "a")).rejects.toMatchObject({
      stderr: `error: [query] expected the models of ${url}, got status 401 (--api-key, or NAUTILUS_API_KEY)\n`,
    });
  });

  it("ends with one sentence and 2 where there is no server", async () => {
    const failed = nautilus("--url", "127.0.0.1:1", "--prompt", "a", "--init-timeout", "0");
    await expect(failed).rejects.toMatchObject({
      code: 2,
      stderr: "error: [query] expected a server at 127.0.0.1:1, got none (nautilus serve)\n",
    });
  });
});
