/** The real Python clients of Triton and NeMo against the server, and the .proto against the descriptors they come with. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parse } from "protobufjs";
import type { Namespace } from "protobufjs";
import { expect, it } from "vitest";
import { FakeEngine } from "../server/fakeEngine.ts";
import { fakeModel, fakeServer } from "../server/fakeServer.ts";
import { hasModules, runPython } from "./python.ts";

const wanted = "42, naïve 漢字 ";
const isReady = hasModules("inference protocol", [
  "tritonclient",
  "grpc",
  "pytriton",
  "nemo",
  "nemo_deploy",
  "numpy",
  "PIL",
]);

it.skipIf(!isReady)("tritonclient, PyTriton and NeMo's query classes get their answers", async () => {
  const engine = new FakeEngine({ answer: () => `${wanted}STOP and more` });
  const stops = ["STOP"];
  await using server = fakeServer({
    models: [fakeModel(engine, { name: "Nemotron-3-8B-4K" })],
    options: { grpcPort: 0 },
  });
  const [http, grpc] = (await server.start()).map((url) => url.replace(/^\w+:\/\//, ""));
  const found = (await runPython("kserve_clients.py", [http, grpc, wanted])) as Record<string, unknown>;
  const whole = [[`${wanted}STOP and more`], [`${wanted}STOP and more`]];
  const stopped = [[wanted], [wanted]];
  for (const client of [
    "tritonclient.http",
    "tritonclient.grpc",
    "pytriton.http",
    "pytriton.grpc",
    "pytriton.decoupled",
  ])
    expect([client, found[client]]).toEqual([client, whole]);
  for (const client of [
    "NewQueryLLM",
    "NewQueryPyTorch",
    "NemoQueryLLMHF",
    "NemoQueryTRTLLMAPI",
    "NemoQueryvLLM",
  ])
    expect([client, found[client]]).toEqual([client, whole]);
  for (const client of ["NemoQueryLLM", "NemoQueryLLM.streaming", "NemoQueryLLMPyTorch"])
    expect([client, found[client], stops]).toEqual([client, stopped, stops]);
  expect(found["compressed"]).toBe(whole[0][0]);
  expect(found["deadline"]).toContain("DEADLINE_EXCEEDED");
  expect(found["tritonclient.grpc.unknown"]).toEqual([
    "StatusCode.NOT_FOUND",
    expect.stringContaining("got 'nobody'"),
  ]);
  expect(found["tritonclient.http.unknown"]).toEqual([
    expect.stringContaining("404"),
    expect.stringContaining("got 'nobody'"),
  ]);
  const stream = found["stream"] as { texts: string[]; final: boolean[]; outputs_of_last: number };
  expect(stream.texts.length).toBeGreaterThan(2);
  expect(stream.texts.at(-1)).toBe(whole[0][0]);
  for (const [i, text] of stream.texts.slice(1).entries())
    expect(text.startsWith(stream.texts[i])).toBe(true);
  expect(stream.final).toEqual([...stream.texts.map(() => false), true]);
  expect(stream.outputs_of_last).toBe(0);
  const numTokens = engine.tokenizer.encode(whole[0][0]).length;
  expect(found["generation_logits"]).toEqual([1, 1, 4, engine.info.vocabSize]);
  expect(found["top_logprobs"]).toEqual([numTokens, numTokens]);
  expect(found["token_logprobs"]).toEqual([2, numTokens]);
  expect(found["vllm.log_probs"]).toBe(1);
  compareNumbers(found["numbers"] as Record<string, Record<string, number>>);
  await expect.poll(() => engine.numRunning).toBe(0);
});

/** Every message of our .proto has the published field numbers. */
function compareNumbers(published: Record<string, Record<string, number>>): void {
  const source = readFileSync(join(import.meta.dirname, "../../src/app/kserve/inference.proto"), "utf8");
  const { root } = parse(source, { keepCase: true });
  let numFields = 0;
  const walk = (namespace: Namespace, path: string): void => {
    for (const nested of namespace.nestedArray) {
      if (!("fieldsArray" in nested)) continue;
      const type = root.lookupType(`inference.${path}${nested.name}`);
      for (const { name, id } of type.fieldsArray) {
        numFields++;
        expect([`${path}${type.name}.${name}`, id]).toEqual([
          `${path}${type.name}.${name}`,
          published[`${path}${type.name}`]?.[name],
        ]);
      }
      walk(type, `${path}${type.name}.`);
    }
  };
  walk(root.lookup("inference") as Namespace, "");
  expect(numFields).toBeGreaterThan(100);
}
