/** `nautilus eval` of a model with an adapter and of one in fewer bits, and the example of tasks of one's own. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { runCli } from "../app/run-cli.ts";

const fromHere = (path: string): string => fileURLToPath(new URL(path, import.meta.url));
const model = fromHere("../fixtures/eval/model");
// Made by PEFT; the model that it was made for has the same shape.
const adapter = fromHere("../fixtures/adapters/lora");
const folder = mkdtempSync(join(tmpdir(), "nautilus-eval-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
mkdirSync(join(folder, "wikitext"));
writeFileSync(
  join(folder, "wikitext", "test.jsonl"),
  `${JSON.stringify({ page: "The cat sat on the mat while the dog ran along the quay.\nThen both slept." })}\n`,
);

const results = z.object({
  results: z.object({ wikitext: z.looseObject({ "bits_per_byte,none": z.number() }) }),
});
const args = ["--device", "cpu", "--precision", "f32", "--tasks", "wikitext", "--data", folder];

async function bitsPerByte(...more: string[]): Promise<number> {
  const { code, stdout, stderr } = await runCli("eval", ...args, ...more, "--json");
  expect(stderr).not.toContain("error:");
  expect(code).toBe(0);
  return results.parse(JSON.parse(stdout)).results.wikitext["bits_per_byte,none"];
}

describe("a model that is opened another way", () => {
  it("scores with an adapter what it scores with the adapter in its weights", async () => {
    const merged = join(folder, "merged");
    const made = await runCli("adapter", "merge", adapter, "--model", model, "--output", merged);
    expect(made.code).toBe(0);
    const output = join(folder, "run");
    const [plain, adapted, inWeights] = [
      await bitsPerByte("--model", model),
      await bitsPerByte("--model", model, "--adapter", adapter, "--output", output),
      await bitsPerByte("--model", merged),
    ];
    expect(Math.abs(adapted / inWeights - 1)).toBeLessThan(1e-6);
    expect(Math.abs(plain / adapted - 1)).toBeGreaterThan(1e-3);
    const without = await runCli("eval", ...args, "--model", model, "--output", output);
    expect(without.stderr).toMatch(/expected the settings that .* holds, got another adapter/);
    expect(without.code).toBe(2);
  });

  it("scores nearly the same in 8 bits, and less so in 4", async () => {
    const plain = await bitsPerByte("--model", model);
    const away = async (format: string): Promise<number> =>
      Math.abs((await bitsPerByte("--model", model, "--quantise", format)) / plain - 1);
    const [eight, four] = [await away("int8"), await away("nf4")];
    expect(eight).toBeGreaterThan(0);
    expect(eight).toBeLessThan(0.01);
    expect(four).toBeGreaterThan(eight);
    expect(four).toBeLessThan(0.1);
  });

  it("says when there is no such adapter", async () => {
    const { code, stderr } = await runCli(
      "eval",
      ...args,
      "--model",
      model,
      "--adapter",
      join(folder, "none"),
    );
    expect(stderr).toMatch(/error: \[\w+\] expected .*none/);
    expect(stderr).not.toMatch(/\n\s+at /);
    expect(code).toBe(2);
  });
});

describe("examples/eval", () => {
  it("runs as its comment says", async () => {
    const { code, stdout } = await runCli(
      "eval",
      "--model",
      model,
      "--device",
      "cpu",
      "--task-file",
      fromHere("../../examples/eval/ports.ts"),
      "--data",
      fromHere("../../examples/eval/data"),
      "--tasks",
      "ports,ports_written",
      "--json",
    );
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      results: {
        ports: { "acc,none": expect.any(Number) as unknown, "acc_norm,none": expect.any(Number) as unknown },
        ports_written: { "exact_match,none": 0, "f1,none": expect.any(Number) as unknown },
      },
      "n-samples": { ports: { effective: 6 }, ports_written: { effective: 6 } },
    });
  });
});
