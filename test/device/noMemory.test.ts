/** Threads of one loop that find no memory all say so, without a race, as the compiler's race detector sees it. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, expect, it } from "vitest";
import { findCompiler } from "../../src/device/build/index.ts";
import { generateHeader } from "../../src/device/cpu/header.ts";

const folder = mkdtempSync(join(tmpdir(), "nautilus-races-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const at = (name: string): string => join(folder, name);
const kernels = fileURLToPath(new URL("../../src/device/cpu/kernels", import.meta.url));
const { command } = await findCompiler();
const detector = ["-std=c++17", "-O1", "-pthread", "-fsanitize=thread"];

function hasDetector(): boolean {
  writeFileSync(at("empty.cpp"), "int main() { return 0; }\n");
  const made = spawnSync(command, [...detector, at("empty.cpp"), "-o", at("empty")]);
  return made.status === 0 && spawnSync(at("empty")).status === 0;
}

const canDetect = hasDetector();
if (!canDetect)
  console.log(`race test skipped: ${command} makes no program with -fsanitize=thread that runs`);

it.skipIf(!canDetect)(
  "is said by several threads at once without a race",
  () => {
    writeFileSync(at("nt_ops.h"), generateHeader());
    const sources = [
      join(kernels, "runtime.cpp"),
      join(kernels, "sampling.cpp"),
      fileURLToPath(new URL("noMemory.cpp", import.meta.url)),
    ];
    const includes = ["-I", kernels, "-I", folder];
    const program = at("program");
    const options = [...detector, "-Dposix_memalign=no_memory", ...includes, ...sources, "-o", program];
    const made = spawnSync(command, options, { encoding: "utf8" });
    expect([made.status, made.stderr]).toEqual([0, ""]);
    const { status, stderr } = spawnSync(program, { encoding: "utf8" });
    expect([status, stderr]).toEqual([0, ""]);
  },
  120_000,
);

it("is said in that way by every kernel", () => {
  const files = readdirSync(kernels).filter((name) => /\.(cpp|h)$/.test(name));
  const texts = files.map((name) => readFileSync(join(kernels, name), "utf8"));
  expect(texts.filter((text) => text.includes("raise_flag(has_failed)")).length).toBeGreaterThan(1);
  for (const text of texts) expect(text).not.toMatch(/has_failed = true/);
});
