/**
 * Bad machines, through made-up CUDA libraries and the command line: each is one sentence with the remedy, and what a run has written
 * stays good when its card is lost.
 */
import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { openCudaLibrary, type CudaLibraryName } from "../../src/device/cuda/libraries.ts";
import { listCheckpoints, readMetrics } from "../../src/train/index.ts";
import { startCli } from "../app/run-cli.ts";
import { buildFakeLibraries, type FakeLibrary } from "./fake/libraries.ts";

const hasCompiler = spawnSync("g++", ["--version"]).status === 0;
let folder: string;
const whole = (): string => join(folder, "whole");

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "machines-"));
  if (!hasCompiler) return;
  mkdirSync(whole());
  buildFakeLibraries(whole());
  mkdirSync(join(folder, "texts"));
  for (let file = 0; file < 8; file++)
    writeFileSync(
      join(folder, "texts", `${file}.txt`),
      `${"sea shell spiral chamber deep light ".repeat(200)}${file}\n`,
    );
  writeFileSync(join(folder, "recipe.json"), JSON.stringify(recipe));
});
afterAll(() => rmSync(folder, { recursive: true }));
beforeEach((context) => {
  if (!hasCompiler) context.skip("building the made-up CUDA libraries needs g++");
  if (process.platform !== "linux") context.skip("the CUDA backend is for Linux");
});

const recipe = {
  run: "run",
  model: {
    preset: "nemotron-tiny",
    width: 32,
    ffnWidth: 64,
    numLayers: 1,
    numHeads: 2,
    numKvHeads: 2,
    headDim: 16,
  },
  tokenizer: { vocabSize: 300, sampleBytes: 50_000 },
  data: { train: [{ source: { kind: "tree", paths: "texts" } }], split: "80,20,0" },
  sequenceLength: 32,
  totalTokens: 8 * 128,
  batchTokens: 128,
  microBatchSequences: 4,
  precision: "bf16",
  optim: { lr: 0.01, minLr: 0.001, warmupTokens: 128 },
  device: "cuda",
  checkpoint: { everySteps: 1 },
};

/** What `nautilus train` says on a machine. */
async function train(machine: Readonly<Record<string, string>>, libraries = whole(), ...more: string[]) {
  const env = {
    NAUTILUS_CUDA_LIBS: libraries,
    // A real cuDNN would ask the real driver.
    NAUTILUS_ATTENTION: "own",
    NAUTILUS_CACHE: join(folder, "cache"),
    ...machine,
  };
  return startCli(["train", "recipe.json", ...more], { cwd: folder, env }).result;
}

/** A folder with the libraries but one. */
function librariesWithout(name: string, absent: FakeLibrary): string {
  const path = join(folder, name);
  cpSync(whole(), path, { recursive: true });
  rmSync(join(path, absent));
  return path;
}

/** The path of a real library that the search finds on this machine. */
function ownLibrary(name: CudaLibraryName): string | undefined {
  try {
    return openCudaLibrary(name).path;
  } catch {
    return undefined;
  }
}

const machines: readonly [title: string, environment: Record<string, string>, message: RegExp][] = [
  [
    "too old a driver",
    { FAKE_VERSION: "11080" },
    /expected a driver for CUDA 12\.0 or later, got one for 11\.8 \(update the NVIDIA driver to 525 or later\)/,
  ],
  [
    "an unsupported card",
    { FAKE_CAPABILITY: "75" },
    /expected a GPU of compute capability 8\.0 or later.*GPU 0 \(Fake GPU\) of compute capability 7\.5 \(A100/,
  ],
  [
    "no visible card",
    { FAKE_CUDA: "cuInit=100" },
    /CUDA_ERROR_NO_DEVICE \(100\) \(no GPU is visible; check 'nvidia-smi' and CUDA_VISIBLE_DEVICES\)/,
  ],
  [
    "a driver half updated",
    { FAKE_CUDA: "cuInit=803" },
    /SYSTEM_DRIVER_MISMATCH \(803\) \(.*restart the machine/,
  ],
  [
    "no access to the card's files",
    { FAKE_CUDA: "cuInit=304" },
    /OPERATING_SYSTEM \(304\) \(.*\/dev\/nvidia/,
  ],
  [
    "a switch that is not up",
    { FAKE_CUDA: "cuInit=802" },
    /SYSTEM_NOT_READY \(802\) \(.*nvidia-fabricmanager/,
  ],
  [
    "a card held by another process",
    { FAKE_CUDA: "cuDevicePrimaryCtxRetain=46" },
    /DEVICE_UNAVAILABLE \(46\) \(another process holds the GPU; end it or choose another/,
  ],
  // The estimate of a run comes before its first allocation.
  [
    "a card full of another process",
    { FAKE_FREE_BYTES: String(2 ** 16) },
    /expected a run within 64\.0+ KiB, got one of .* \(other processes hold 4\.0+ GiB of the GPU; end them \('nvidia-smi'\) or choose another/,
  ],
  [
    "a card too full for the first allocation",
    { FAKE_FREE_BYTES: String(2 ** 20) },
    /expected room for .* on GPU 0 \(Fake GPU\), got 1\.0+ MiB free of .* \(other processes hold 4\.0+ GiB of the GPU; end them/,
  ],
  [
    "no memory for a context",
    { FAKE_CUDA: "cuDevicePrimaryCtxRetain=2" },
    /OUT_OF_MEMORY \(2\) \(.*free the GPU's memory/,
  ],
];

describe("a bad machine", () => {
  it.concurrent.each(machines)(
    "with %s is a sentence with the remedy",
    async (_, environment, message) => {
      const { code, stderr } = await train(environment);
      expect(stderr).toMatch(message);
      expect(stderr).not.toMatch(/^\s+at /m);
      expect(code).toBe(2);
    },
    60_000,
  );

  it("without a driver is a sentence that names it and what brings it", async (context) => {
    const { stderr, code } = await train({}, librariesWithout("no-driver", "libcuda.so.1"));
    if (!stderr.includes("libcuda.so.1")) context.skip("this machine has a driver of its own");
    expect(stderr).toMatch(
      /expected libcuda\.so\.1 \(the NVIDIA driver\), got .*\(install the NVIDIA driver, 525 or later; in a container/,
    );
    expect(code).toBe(2);
  });

  it("without a library is a sentence that names it and the package that brings it", async (context) => {
    const own = ownLibrary("cublasLt") ?? ownLibrary("nvrtc");
    if (own !== undefined) context.skip(`this machine has ${own}`);
    const [noProducts, noCompiler, foreign] = [
      librariesWithout("no-products", "libcublasLt.so.13"),
      librariesWithout("no-compiler", "libnvrtc.so.13"),
      librariesWithout("foreign", "libcublasLt.so.13"),
    ];
    writeFileSync(join(foreign, "libcublasLt.so.13"), "no library");
    const said = [noProducts, noCompiler, foreign].map(
      async (libraries) =>
        (await train({ NAUTILUS_CACHE: join(libraries, "cache"), PATH: "/usr/bin:/bin" }, libraries)).stderr,
    );
    const [products, compiler, broken] = await Promise.all(said);
    expect(products).toMatch(
      /expected libcublasLt\.so\.13 or libcublasLt\.so\.12 \(matrix products\), got .*pip: nvidia-cublas/,
    );
    expect(compiler).toMatch(
      /expected libnvrtc\.so\.13 or libnvrtc\.so\.12 \(the run-time compiler for GPU kernels\), got .*pip: nvidia-cuda-nvrtc/,
    );
    expect(broken).toMatch(
      /expected libcublasLt\.so\.13 .*got .*foreign\/libcublasLt\.so\.13.*NAUTILUS_CUDA_LIBS/,
    );
  }, 60_000);

  it("with a library of another version is a sentence that names what it lacks", async () => {
    const path = join(folder, "older");
    mkdirSync(path);
    buildFakeLibraries(path, ["cublasLtMatmulAlgoCheck"]);
    const { stderr } = await train({}, path);
    expect(stderr).toMatch(
      /expected cublasLtMatmulAlgoCheck in .*libcublasLt\.so\.13, got .*\(install cuBLAS 12 or later\)/,
    );
  }, 60_000);
});

describe("a card that is lost in mid-run", () => {
  const losses: readonly [status: number, name: string][] = [
    // Another process may have it, but this one has lost it.
    [46, "DEVICE_UNAVAILABLE"],
    [700, "ILLEGAL_ADDRESS"],
    [719, "LAUNCH_FAILED"],
  ];
  it("leaves whole checkpoints, from which another card goes on", async () => {
    for (const [status, name] of losses) {
      const run = `run-${status}`;
      const set = ["--set", `run=${run}`];
      const lost = await train({ FAKE_CUDA: `cuEventSynchronize=${status}@150` }, whole(), ...set);
      expect(lost.stderr).toMatch(
        new RegExp(`CUDA_ERROR_${name} \\(${status}\\) \\(.*resume from the last checkpoint\\)`),
      );
      expect(lost.stderr).not.toMatch(/^\s+at /m);
      expect(lost.code).toBe(2);
      const kept = listCheckpoints(join(folder, run));
      expect(kept.length).toBeGreaterThan(1);
      expect(kept.length).toBeLessThan(8);
      const again = await train({}, whole(), ...set);
      expect(again.stderr).toContain(`going on from ${join(run, "checkpoints")}`);
      expect(again.code).toBe(0);
      const steps = readMetrics(join(folder, run, "metrics.jsonl")).flatMap((line) =>
        line.kind === "train" ? [line.step] : [],
      );
      expect(steps).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
    }
  }, 120_000);
});
