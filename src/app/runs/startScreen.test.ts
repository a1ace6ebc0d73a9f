import { spawnSync } from "node:child_process";
import { describe, expect, it } from "vitest";
import { startScreen } from "./startScreen.ts";

const model = {
  name: "Nemotron-3-8B-Chat-4K-SteerLM",
  dtype: "bf16",
  quantise: null,
  kvCache: "bf16",
  device: "cpu: AMD EPYC 9654 96-Core Processor, 192 threads, AVX-512 with bf16",
  maxContext: 131_072,
  adapters: ["legal"],
};
const screen = {
  url: "https://255.255.255.255:65535",
  models: [model, { ...model, name: "small", device: "cuda" }],
  grpcPort: 65_535,
  hasPlayground: true,
  needsKey: true,
};

describe("the start screen", () => {
  it("fits into 80 columns", () => {
    const lines = startScreen(screen).split("\n");
    expect(lines.filter((line) => line.length > 80)).toEqual([]);
    expect(lines).toContain("  small: bf16 on cuda, 131072 tokens of context");
    expect(lines).toContain("  small:legal");
    expect(lines).toContain("    131072 tokens of context");
  });

  it("says what weights and cache are held as where it is not the model's dtype", () => {
    const fp8 = { ...model, name: "both", device: "cuda", quantise: "fp8", kvCache: "fp8" };
    const cache = { ...fp8, name: "cache", quantise: null };
    const lines = startScreen({ ...screen, models: [fp8, cache] }).split("\n");
    expect(lines).toContain("  both: fp8 on cuda, cache in fp8, 131072 tokens of context");
    expect(lines).toContain("  cache: bf16 on cuda, cache in fp8, 131072 tokens of context");
  });

  it("shows a command that a shell takes as it stands, whatever the model is called", () => {
    const name = `it's "mine"`;
    const text = startScreen({ ...screen, models: [{ ...model, name }] });
    const command = text.slice(text.indexOf("  curl"), text.indexOf("  Ctrl-C"));
    const script = `curl() { for last; do :; done; printf %s "$last"; }\n${command}`;
    const { stdout, stderr } = spawnSync("sh", ["-c", script], { encoding: "utf8" });
    expect(stderr).toBe("");
    expect(JSON.parse(stdout)).toEqual({ model: name, prompt: "The meaning of life is", max_tokens: 32 });
  });
});
