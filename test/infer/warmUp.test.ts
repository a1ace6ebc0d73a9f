/** What an engine prepares before its first request, and which sizes of operators it lets a device stop for to time them. */
import { expect, it } from "vitest";
import { openDevice } from "../../src/device/index.ts";
import type { Device, Tuning } from "../../src/device/index.ts";
import { createEngine, generateTogether, parseSampling } from "../../src/infer/index.ts";
import type { EngineRequest } from "../../src/infer/index.ts";
import { Context } from "../../src/tensor/index.ts";
import { plainTokenizer } from "../plain-tokenizer.ts";
import { tinyConfig, tinyDecoder } from "../tiny-model.ts";

/** The same device, which says that it is worth warming up, and tells what it may time. */
function timingDevice(device: Device, told: Tuning[]): Device {
  return new Proxy(device, {
    get(target, name) {
      if (name === "kind") return "cuda";
      if (name === "withTuning")
        return <Result>(tuning: Tuning, body: () => Result): Result => {
          told.push(tuning);
          return body();
        };
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

const requests: EngineRequest[] = [5, 11, 3].map((numPrompt, seed) => ({
  prompt: Array.from({ length: numPrompt }, (_, i) => (7 * i + 13 * seed) % 60),
  sampling: parseSampling({ temperature: 0, maxTokens: 6, stopAtEnd: false }),
}));

async function answers(device: Device, warmsUp: boolean, told: Tuning[]): Promise<number[][]> {
  const context = new Context(device);
  using decoder = tinyDecoder(context, "f32");
  await using engine = createEngine(context, decoder, {
    tokenizer: plainTokenizer(tinyConfig.vocabSize),
    endTokens: [],
    cacheTokens: 128,
    blockSize: 4,
    maxSequences: 4,
    maxStepRows: 8,
    warmsUp,
  });
  expect(told.every((tuning) => tuning === "all")).toBe(true);
  expect(told.length > 0).toBe(warmsUp);
  const tokens: number[][] = requests.map(() => []);
  for await (const { index, event } of generateTogether(engine, requests))
    if (event.type === "token") tokens[index].push(event.token);
  return tokens;
}

it("times decode steps and full steps alone, and changes no answer by it", async () => {
  using device = await openDevice({ kind: "reference" });
  const expected = await answers(device, false, []);
  const told: Tuning[] = [];
  expect(await answers(timingDevice(device, told), true, told)).toEqual(expected);
  // 19 rows of prompts: two steps of 8, and what is left.
  expect(told.filter((tuning) => tuning === "repeated")).toHaveLength(2);
  expect(told).toContain("none");
});
