/** The parts that all protocols share: start and end, keys, limits, and the path to the engine. */
import { describe, expect, it } from "vitest";
import { EngineFailedError } from "../../src/base/index.ts";
import { parseSampling } from "../../src/infer/index.ts";
import type { EngineRequest } from "../../src/infer/index.ts";
import { serverInfoSchema } from "../../src/app/api/serverInfo.ts";
import { RequestContext } from "../../src/app/server/requestContext.ts";
import { runRequest } from "../../src/app/server/runRequest.ts";
import type { RunEvent } from "../../src/app/server/runRequest.ts";
import { resolveModel } from "../../src/app/server/serverContext.ts";
import { fakeServer } from "./fakeServer.ts";
import { FakeEngine } from "./fakeEngine.ts";

const request = (prompt: number[], maxTokens = 5): EngineRequest => ({
  prompt,
  sampling: parseSampling({ maxTokens, temperature: 0, stopAtEnd: false }),
});

describe("server", () => {
  it("starts, answers probes, and ends", async () => {
    await using server = fakeServer();
    const [url] = await server.start();
    expect(await (await fetch(`${url}/health`)).json()).toEqual({ status: "ok" });
    expect(await (await fetch(`${url}/ready`)).json()).toEqual({ status: "ready", models: ["fake"] });
    const unknown = await fetch(`${url}/v1/nothing`, { headers: { "x-request-id": "abc" } });
    expect([unknown.status, unknown.headers.get("x-request-id")]).toEqual([404, "abc"]);
    expect(await unknown.json()).toMatchObject({ error: { type: "not_found_error", code: "unknown_route" } });
    const kserve = await fetch(`${url}/v2/nothing`);
    expect([kserve.status, Object.keys((await kserve.json()) as object)]).toEqual([404, ["error"]]);
  });

  it("says what weights and cache are held as", async () => {
    const engine = new FakeEngine({ quantise: "fp8", kvCache: "fp8" });
    await using server = fakeServer({ engine });
    const info: unknown = await (await server.app.request("/info")).json();
    const { models } = serverInfoSchema.parse(info);
    expect(models[0]).toMatchObject({ dtype: "f32", quantise: "fp8", kvCache: "fp8" });
    const metrics = await (await server.app.request("/metrics")).text();
    const labels = 'model="fake",dtype="f32",quantise="fp8",kv_cache="fp8"';
    expect(metrics).toContain(`nautilus_model_info{${labels}} 1\n`);
  });

  it("asks for keys where some are set, but not of probes", async () => {
    await using server = fakeServer({ options: { apiKeys: ["secret", "other"] } });
    const status = async (headers: Record<string, string>): Promise<number> =>
      (await server.app.request("/metrics", { headers })).status;
    expect((await server.app.request("/health")).status).toBe(200);
    expect(await status({})).toBe(401);
    expect(await status({ authorization: "Bearer wrong" })).toBe(401);
    expect(await status({ authorization: "Bearer other" })).toBe(200);
    expect(await status({ "triton-access-token": "secret" })).toBe(200);
  });

  it("merges the events of sequences, counts them, and gives slots back", async () => {
    await using server = fakeServer({ options: { maxConcurrent: 2 } });
    const { context } = server;
    const model = resolveModel(context, "fake");
    const run = new RequestContext(context, { protocol: "other", route: "test" });
    const events: RunEvent[] = [];
    const requests = [request([1, 2]), request([3]), request([4, 5, 6])];
    for await (const event of await runRequest(context, run, { model, requests })) events.push(event);
    for (const sequence of [0, 1, 2]) {
      const own = events.filter((event) => event.sequence === sequence).map(({ event }) => event.type);
      expect(own).toEqual([...Array.from({ length: 5 }, () => "token"), "end"]);
    }
    expect(context.admission.numHeld).toBe(0);
    const metrics = await context.metrics.registry.metrics();
    expect(metrics).toContain('nautilus_generated_tokens_total{model="fake"} 15');
    expect(metrics).toContain('nautilus_prompt_tokens_total{model="fake"} 6');
  });

  it("stops the engine when its consumer leaves, before and after the first event", async () => {
    const engine = new FakeEngine({ tokenMs: 5 });
    await using server = fakeServer({ engine });
    const { context } = server;
    const model = resolveModel(context, "fake");
    const run = new RequestContext(context, { protocol: "other", route: "test" });
    const untouched = await runRequest(context, run, { model, requests: [request([1], 400)] });
    await untouched.return?.();
    for await (const _ of await runRequest(context, run, { model, requests: [request([1], 400)] })) break;
    expect([engine.numRunning, context.admission.numHeld, engine.numAborted > 0]).toEqual([0, 0, true]);
  });

  it("refuses more than fits into the queue, with a time to come back", async () => {
    await using server = fakeServer({ options: { maxConcurrent: 1, maxQueue: 1 } });
    const { context } = server;
    const model = resolveModel(context, "fake");
    const run = new RequestContext(context, { protocol: "other", route: "test" });
    const first = await runRequest(context, run, { model, requests: [request([1], 50)] });
    const second = runRequest(context, run, { model, requests: [request([1])] });
    await expect(runRequest(context, run, { model, requests: [request([1])] })).rejects.toMatchObject({
      status: 429,
      retryAfterSeconds: 2,
    });
    await first.return?.();
    await (await second).return?.();
  });

  it("passes on the death of an engine", async () => {
    const engine = new FakeEngine({ crashAfterTokens: 3 });
    await using server = fakeServer({ engine });
    const { context } = server;
    const model = resolveModel(context, "fake");
    const run = new RequestContext(context, { protocol: "other", route: "test" });
    const events = await runRequest(context, run, { model, requests: [request([1])] });
    const all = async (): Promise<void> => {
      for await (const _ of events);
    };
    await expect(all()).rejects.toThrow(EngineFailedError);
    expect(context.admission.numHeld).toBe(0);
  });
});
