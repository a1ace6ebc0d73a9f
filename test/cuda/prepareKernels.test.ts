/** Which kernels are compiled when a GPU is opened, through the made-up driver and compiler: all but the rare, which wait for their first launch. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import { setLogSink } from "../../src/base/index.ts";
import { modulesOf } from "../../src/device/cuda/compiler.ts";
import { createCudaDevice } from "../../src/device/cuda/index.ts";
import { declaredKernels } from "../../src/device/cuda/launcher.ts";
import { Context } from "../../src/tensor/index.ts";
import { buildFakeLibraries } from "./fake/libraries.ts";

const hasCompiler = spawnSync("g++", ["--version"]).status === 0;
const names = ["NAUTILUS_CUDA_LIBS", "NAUTILUS_CACHE"] as const;
const before = names.map((name) => process.env[name]);
let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "nautilus-kernels-"));
  if (!hasCompiler || process.platform !== "linux") return;
  buildFakeLibraries(folder);
  for (const name of names) process.env[name] = folder;
});
afterAll(() => {
  for (const [index, name] of names.entries()) {
    if (before[index] === undefined) delete process.env[name];
    else process.env[name] = before[index];
  }
  rmSync(folder, { recursive: true });
});
beforeEach((context) => {
  if (!hasCompiler) context.skip("building the made-up CUDA libraries needs g++");
  if (process.platform !== "linux") context.skip("the CUDA backend is for Linux");
});

/** How many modules of each file are in the cache of compiled kernels. */
function countCompiled(): Map<string, number> {
  const files = readdirSync(join(folder, "cuda")).map((name) => name.replace(/-[0-9a-f]+\.image$/, ".cu"));
  return new Map([...Map.groupBy(files, (file) => file)].map(([file, all]) => [file, all.length]));
}

it("compiles all kernels but the rare ahead, and a rare one when it is launched", async () => {
  const sink = setLogSink(() => {});
  try {
    using device = createCudaDevice();
    await device.prepareKernels();
    const ahead = countCompiled();
    // Of bf16, floats in the cache, heads up to 64 and 128: for few sequences and for many.
    expect(ahead.get("attention_decode.cu")).toBe(4);
    const others = modulesOf(declaredKernels(), 90).filter(({ file }) => file !== "attention_decode.cu");
    const expected = [...Map.groupBy(others, ({ file }) => file)].map(
      ([file, modules]) => [file, modules.length] as const,
    );
    expect(expected.length).toBeGreaterThan(20);
    for (const [file, count] of expected) expect([file, ahead.get(file)]).toEqual([file, count]);

    const context = new Context(device);
    const launched = (dtype: "f32" | "bf16", cacheDtype: "f32" | "bf16" | "u8"): number | undefined => {
      context.scope(() => {
        const [cache, scales] = [context.empty([32, 2, 64], cacheDtype), context.empty([2, 32], "f32")];
        const hasCodes = cacheDtype === "u8";
        const integers = (count: number) => context.empty([count], "i32");
        device.run("attentionPaged", {
          q: context.empty([1, 128], dtype),
          kCache: cache,
          vCache: cache,
          kScales: hasCodes ? scales : undefined,
          vScales: hasCodes ? scales : undefined,
          blockTables: integers(2),
          contextLengths: integers(1),
          queryStarts: integers(2),
          o: context.empty([1, 128], dtype),
          numSequences: 1,
          numSlots: 32,
          maxQueryLength: 1,
          numHeads: 2,
          numKvHeads: 2,
          headDim: 64,
          blockSize: 16,
          maxBlocksPerSequence: 2,
          qRowStride: 128,
          oRowStride: 128,
          scale: 0.125,
        });
      });
      return countCompiled().get("attention_decode.cu");
    };
    expect(launched("bf16", "bf16")).toBe(4);
    expect(launched("bf16", "u8")).toBe(5);
    expect(launched("f32", "f32")).toBe(6);
    expect(launched("f32", "f32")).toBe(6);
  } finally {
    setLogSink(sink);
  }
});
