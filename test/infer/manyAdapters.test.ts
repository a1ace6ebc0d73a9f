/**
 * Several LoRA adapters in one batch: every request gets the tokens that it gets alone with its adapter as the decoder's only one, whatever
 * runs beside it, also after adapters were exchanged under a name; and nothing stays behind.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { RandomStream, RequestError } from "../../src/base/index.ts";
import { createEngine, parseSampling, StackedAdapters } from "../../src/infer/index.ts";
import type { Engine } from "../../src/infer/index.ts";
import {
  createAdapter,
  Decoder,
  loadAdapter,
  modelFamily,
  parseAdapterConfig,
  saveAdapter,
} from "../../src/models/index.ts";
import { Context } from "../../src/tensor/index.ts";
import { openOrSkip } from "../open-device.ts";
import { plainTokenizer } from "../plain-tokenizer.ts";
import { tinyConfig, tinyDecoder } from "../tiny-model.ts";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "nautilus-adapters-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

const family = modelFamily(tinyConfig);
const prompts = [
  [1, 2, 3, 4, 5, 6],
  [1, 2, 3, 4, 5, 6],
  [1, 2, 3, 4, 5, 6],
  [9, 8, 7],
  [30, 31, 32, 33],
];
const chosen = ["first", "second", undefined, "first", "second"];

/** An adapter with no zero in it, saved as PEFT has it. */
function writeAdapter(context: Context, decoder: Decoder, name: string, rank: number): void {
  const config = parseAdapterConfig({
    method: "lora",
    rank,
    targets: rank === 4 ? ["q_proj", "v_proj", "down_proj"] : ["all"],
  });
  using adapter = createAdapter(decoder, { family, config, dtype: "f32" });
  const random = new RandomStream(rank);
  for (const parameter of adapter.parameters)
    parameter.set(Float64Array.from({ length: parameter.numElements }, () => 0.3 * random.nextNormal()));
  saveAdapter(context, adapter, { decoder, family, folder: join(folder, name), baseModel: "base" });
}

const sampling = { maxTokens: 12, temperature: 0 };

async function tokensOf(
  engine: Engine,
  prompt: readonly number[],
  adapter: string | undefined,
): Promise<number[]> {
  const tokens: number[] = [];
  for await (const event of engine.generate({ prompt, sampling: parseSampling(sampling), adapter }))
    if (event.type === "token") tokens.push(event.token);
  return tokens;
}

/** As `tinyDecoder`, its blocks' matrices in 8-bit floats. */
function tinyQuantised(context: Context): Decoder {
  using dense = tinyDecoder(context, "f32");
  const decoder = new Decoder(context, tinyConfig, { dtype: "f32", quantise: "fp8" });
  for (const parameter of decoder.parameters)
    parameter.setBytes(dense.parameters.get(parameter.name).toBytes());
  for (const [name, weight] of decoder.quantised) weight.assign(context, dense.parameters.get(name));
  return decoder;
}

/** Greedy tokens by whole forward passes, the adapter attached alone. */
function alone(
  context: Context,
  decoder: Decoder,
  prompt: readonly number[],
  adapter: string | undefined,
): number[] {
  using loaded =
    adapter === undefined
      ? undefined
      : loadAdapter(context, decoder, { family, folder: join(folder, adapter) });
  return decoder.withAdapter(loaded, () => {
    const tokens = [...prompt];
    while (tokens.length < prompt.length + sampling.maxTokens) {
      const logits = context.scope(() => {
        const tensor = (values: readonly number[]) => context.tensor(values, [values.length], "i32");
        const batch = {
          tokens: tensor(tokens),
          positions: tensor([...tokens.keys()]),
          numSequences: 1,
          sequenceLength: tokens.length,
        };
        return decoder.logits(context, decoder.forward(context, batch)).toArray();
      });
      const last = logits.subarray(-tinyConfig.vocabSize);
      tokens.push(last.indexOf(Math.max(...last)));
    }
    return tokens.slice(prompt.length);
  });
}

describe.each(["reference", "cpu", "cuda"] as const)("adapters of one batch on %s", (kind) => {
  it.for([
    ["floats", tinyDecoder],
    ["8-bit floats", tinyQuantised],
  ] as const)(
    "gives every request what it gets alone, also after an exchange, over a base in %s",
    async ([, open], test) => {
      using device = await openOrSkip(kind, test);
      const context = new Context(device);
      const before = device.memory().liveBytes;
      {
        using decoder = open(context, "f32");
        writeAdapter(context, decoder, "first", 4);
        writeAdapter(context, decoder, "second", 3);
        const expected = prompts.map((prompt, i) => alone(context, decoder, prompt, chosen[i]));
        expect(new Set(expected.slice(0, 3).map((tokens) => tokens.join())).size).toBe(3);
        using adapters = new StackedAdapters(context, decoder, { numSlots: 2, maxRank: 4 });
        await using engine = createEngine(context, decoder, {
          tokenizer: plainTokenizer(tinyConfig.vocabSize),
          endTokens: [],
          cacheTokens: 512,
          blockSize: 4,
          adapters,
        });
        await engine.loadAdapter("first", join(folder, "first"));
        await engine.loadAdapter("second", join(folder, "second"));
        expect(engine.info.adapters).toEqual(["first", "second"]);
        const together = await Promise.all(prompts.map((prompt, i) => tokensOf(engine, prompt, chosen[i])));
        expect(together).toEqual(expected);
        await engine.unloadAdapter("first");
        await expect(tokensOf(engine, prompts[0], "first")).rejects.toThrow(RequestError);
        // The name of one with the numbers of the other: neither slot nor cache may remember.
        await engine.loadAdapter("first", join(folder, "second"));
        expect(await tokensOf(engine, prompts[0], "first")).toEqual(expected[1]);
        await expect(engine.loadAdapter("third", join(folder, "first"))).rejects.toThrow(
          /at most 2 adapters/,
        );
      }
      expect(device.memory().liveBytes).toBe(before);
    },
  );
});
