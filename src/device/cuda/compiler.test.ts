import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { architectureFor, compileModule, compileModules, isCompiled, modulesOf } from "./compiler.ts";
import { kernel } from "./launcher.ts";
import type { CompileInput } from "./nvrtc.ts";

describe("architectureFor", () => {
  const known = [75, 80, 86, 89, 90, 100, 120];
  it("takes the device's own machine code, with its own instructions from 9.0 on", () => {
    expect(architectureFor(80, known)).toBe("sm_80");
    expect(architectureFor(90, known)).toBe("sm_90a");
    expect(architectureFor(120, known)).toBe("sm_120a");
  });
  it("takes code of the same family, else PTX, for a device newer than the compiler", () => {
    expect(architectureFor(87, known)).toBe("sm_86");
    expect(architectureFor(121, known)).toBe("sm_120");
    expect(architectureFor(130, known)).toBe("compute_120");
    expect(architectureFor(90, [75, 80, 86])).toBe("compute_86");
  });
});

describe("the kernel cache", () => {
  let folder: string;
  let before: string | undefined;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "kernels-"));
    before = process.env["NAUTILUS_CACHE"];
    process.env["NAUTILUS_CACHE"] = folder;
  });
  afterEach(() => {
    if (before === undefined) delete process.env["NAUTILUS_CACHE"];
    else process.env["NAUTILUS_CACHE"] = before;
    rmSync(folder, { recursive: true });
  });

  /** Gives the source back as machine code and counts what it was asked. */
  function fakeCompiler(version: number) {
    const inputs: CompileInput[] = [];
    const compile = (input: CompileInput) => {
      inputs.push(input);
      return { image: new TextEncoder().encode(input.source), log: "" };
    };
    return {
      version,
      architectures: [80, 90],
      inputs,
      compile,
      compileAsync: (input: CompileInput) => Promise.resolve(compile(input)),
    };
  }
  const module = { file: "matmul.cu", defines: { T: "float", Bias: "bf16", WIDTH: 4 }, moduleKey: "one" };

  it("puts the header and the definitions before the source, types as types", () => {
    const compiler = fakeCompiler(13_000);
    compileModule(compiler, module, "sm_90a");
    const [{ source, headers, options }] = compiler.inputs;
    expect(source).toMatch(
      /^#include "common\.cuh"\nusing Bias = bf16;\nusing T = float;\n#define WIDTH 4\n#line 1 "matmul\.cu"\n/,
    );
    expect(Object.keys(headers)).toContain("common.cuh");
    expect(options).toContain("--gpu-architecture=sm_90a");
  });

  it("compiles once, and again for another architecture, compiler or definition", () => {
    const compiler = fakeCompiler(13_000);
    expect(isCompiled(compiler, module, "sm_90a")).toBe(false);
    const image = compileModule(compiler, module, "sm_90a");
    expect(isCompiled(compiler, module, "sm_90a")).toBe(true);
    expect(Buffer.from(compileModule(compiler, module, "sm_90a"))).toEqual(Buffer.from(image));
    expect(compiler.inputs).toHaveLength(1);
    compileModule(compiler, module, "sm_80");
    compileModule(compiler, { ...module, defines: { ...module.defines, WIDTH: 8 } }, "sm_90a");
    expect(compiler.inputs).toHaveLength(3);
    const newer = fakeCompiler(13_020);
    compileModule(newer, module, "sm_90a");
    expect(newer.inputs).toHaveLength(1);
    expect(readdirSync(join(folder, "cuda"))).toHaveLength(4);
  });

  it("compiles many modules and skips those in the cache", async () => {
    const compiler = fakeCompiler(13_000);
    const modules = Array.from({ length: 7 }, (_, WIDTH) => ({
      ...module,
      defines: { WIDTH },
      moduleKey: `${WIDTH}`,
    }));
    compileModule(compiler, modules[3], "sm_80");
    const sizes = await compileModules(compiler, modules, { architecture: "sm_80", parallel: 3 });
    expect(sizes).toHaveLength(7);
    expect(sizes.every((size) => size > 0)).toBe(true);
    expect(compiler.inputs).toHaveLength(7);
  });

  it("names each module once and leaves out what a device cannot run", () => {
    const shared = { file: "test-only.cu", defines: { T: "float" } };
    const references = [
      kernel({ ...shared, entry: "first" }),
      kernel({ ...shared, entry: "second" }),
      kernel({ ...shared, file: "test-hopper.cu", entry: "third", minimumCapability: 90 }),
    ];
    expect(modulesOf(references, 80).map((item) => item.file)).toEqual(["test-only.cu"]);
    expect(modulesOf(references, 90)).toHaveLength(2);
  });
});
