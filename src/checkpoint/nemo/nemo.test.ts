import { cpSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, describe, expect, it } from "vitest";
import { checkpointFixture, described } from "../../../test/checkpoint/described.ts";
import { openCheckpointFolder } from "../folder.ts";
import { openCheckpoint } from "../open.ts";
import { megatronConfig } from "../megatron/fromHuggingFace.ts";
import { tensorTable } from "../source.ts";
import { openNemo } from "./open.ts";
import { readNemo1Config } from "./config.ts";
import { writeNemo } from "./writer.ts";

const work = mkdtempSync(join(tmpdir(), "nautilus-nemo-"));
afterAll(() => rmSync(work, { recursive: true }));
const fixture = (name: string): string => checkpointFixture(`nemo/${name}`);

function expectedTensors(model: "nemotron" | "llama"): ReturnType<typeof described> {
  using source = openCheckpointFolder(fixture(model));
  return described(source);
}

/** Keys of transformers' config.json that Megatron's files determine. */
const configKeys = [
  "model_type",
  "vocab_size",
  "hidden_size",
  "intermediate_size",
  "num_hidden_layers",
  "num_attention_heads",
  "num_key_value_heads",
  "head_dim",
  "hidden_act",
  "max_position_embeddings",
  "initializer_range",
  "tie_word_embeddings",
];

function expectConfig(config: unknown, model: "nemotron" | "llama"): void {
  const theirs = JSON.parse(readFileSync(join(fixture(model), "config.json"), "utf8")) as Record<
    string,
    unknown
  >;
  expect(config).toMatchObject(Object.fromEntries(configKeys.map((key) => [key, theirs[key]])));
  const rope = theirs["rope_parameters"] as { rope_theta: number; partial_rotary_factor?: number };
  expect(config).toMatchObject(
    model === "nemotron"
      ? {
          norm_eps: theirs["norm_eps"],
          rope_theta: rope.rope_theta,
          partial_rotary_factor: rope.partial_rotary_factor,
        }
      : { rms_norm_eps: theirs["rms_norm_eps"], rope_theta: rope.rope_theta },
  );
}

describe("containers of NeMo and Megatron-LM", () => {
  it.each(["zarr.nemo", "legacy-tp2.nemo", "tp2-pp2.nemo", "nemo2", "megatron", "megatron-legacy"])(
    "%s holds the model that transformers has",
    async (name) => {
      using checkpoint = await openCheckpoint(fixture(name), { vocabSize: 20 });
      expect(described(checkpoint.weights)).toEqual(expectedTensors("nemotron"));
      expectConfig(checkpoint.config, "nemotron");
      const tokenizer = checkpoint.tokenizerFiles.get("tokenizer.model")?.();
      const expected = readFileSync(join(fixture("nemotron"), "tokenizer.model"));
      expect(tokenizer === undefined ? undefined : Buffer.from(tokenizer)).toEqual(
        name.startsWith("megatron") ? undefined : expected,
      );
    },
  );

  it("puts gated rows of tensor ranks together", async () => {
    using checkpoint = await openCheckpoint(fixture("llama-tp2.nemo"), { vocabSize: 20 });
    expect(described(checkpoint.weights)).toEqual(expectedTensors("llama"));
    expectConfig(checkpoint.config, "llama");
  });

  it("reads any range of a tensor that lies in many places", async () => {
    const expected = expectedTensors("nemotron");
    for (const name of ["zarr.nemo", "tp2-pp2.nemo"]) {
      using checkpoint = await openCheckpoint(fixture(name), { vocabSize: 20 });
      for (const [tensor, { hex }] of Object.entries(expected)) {
        const whole = Buffer.from(hex, "hex");
        for (let from = 0; from < whole.length; from += 13) {
          const part = new Uint8Array(Math.min(13, whole.length - from));
          checkpoint.weights.readInto(tensor, part, from);
          expect(Buffer.from(part)).toEqual(whole.subarray(from, from + 13));
        }
      }
    }
  });

  it("keeps padding rows when no vocabulary size is given, and refuses one beyond them", async () => {
    using checkpoint = await openCheckpoint(fixture("zarr.nemo"));
    expect(checkpoint.weights.info("lm_head.weight").shape).toEqual([24, 8]);
    expect(checkpoint.config).toMatchObject({ vocab_size: 24 });
    await expect(openCheckpoint(fixture("zarr.nemo"), { vocabSize: 25 })).rejects.toThrow(
      "at most the 24 rows",
    );
  });

  it("removes the unpacked copy of a gzipped archive", async () => {
    const temporaryFolder = mkdtempSync(join(work, "temporary-"));
    {
      using checkpoint = await openNemo(fixture("legacy-tp2.nemo"), { temporaryFolder });
      expect(readdirSync(temporaryFolder)).toHaveLength(1);
      expect([...checkpoint.weights.names()].length).toBeGreaterThan(0);
    }
    expect(readdirSync(temporaryFolder)).toEqual([]);
    const path = join(work, "broken.nemo");
    const good = readFileSync(fixture("legacy-tp2.nemo"));
    writeFileSync(path, good.subarray(0, 3000));
    await expect(openNemo(path, { temporaryFolder })).rejects.toThrow("expected a gzipped archive");
    writeFileSync(path, gzipSync(Buffer.alloc(100)));
    await expect(openNemo(path, { temporaryFolder })).rejects.toThrow("expected a whole tar archive");
    expect(readdirSync(temporaryFolder)).toEqual([]);
  });

  it("refuses an archive that unpacks to more than any checkpoint", async () => {
    const path = join(work, "bomb.nemo");
    const zeros = gzipSync(Buffer.alloc(1 << 24), { level: 9 });
    // Members of a gzip file follow each other: 5 of 16 MiB.
    writeFileSync(path, Buffer.concat(Array.from({ length: 5 }, () => zeros)));
    await expect(openNemo(path, { temporaryFolder: work })).rejects.toThrow(
      "one that unpacks beyond 64.00 MiB",
    );
  });

  it("names a missing rank, and tensors and keys that no family has", async () => {
    const folder = join(work, "megatron");
    cpSync(fixture("megatron"), folder, { recursive: true });
    rmSync(join(folder, "release", "mp_rank_01_001"), { recursive: true });
    await expect(openNemo(folder)).rejects.toThrow("2 tensor ranks times 2 pipeline ranks in");
    const yaml = "num_layers: 2\nhidden_size: 8\nnum_attention_heads: 2\nmax_position_embeddings: 8\n";
    expect(() => readNemo1Config(`${yaml}num_moe_experts: 8`)).toThrow("num_moe_experts: expected 1, got 8");
    expect(() => readNemo1Config("hidden_size: 8")).toThrow("[model_config.yaml] num_layers: expected");
    expect(() => readNemo1Config("- a\n- b")).toThrow("expected keys and values, got a list");
    expect(() => readNemo1Config("a: [")).toThrow("expected YAML");
    expect(() => readNemo1Config(`${yaml}num_query_groups: 3`)).toThrow("groups that divide heads");
  });

  it("refuses a folder and a file of another kind", async () => {
    await expect(openNemo(mkdtempSync(join(work, "none-")))).rejects.toThrow(
      "expected weights of NeMo or Megatron",
    );
    writeFileSync(join(work, "text"), "just text");
    await expect(openCheckpoint(join(work, "text"))).rejects.toThrow("a file of another kind");
    await expect(openCheckpoint(join(work, "nothing"))).rejects.toThrow("nothing there");
  });
});

describe("writing .nemo", () => {
  it.each(["nemotron", "llama"] as const)("gives back %s bit for bit", async (model) => {
    const name = model === "nemotron" ? "zarr.nemo" : "llama-tp2.nemo";
    const path = join(work, `${model}.nemo`);
    {
      using original = await openNemo(fixture(name));
      using weights = openCheckpointFolder(fixture(model));
      writeNemo(path, { config: original.config, weights, tokenizer: Buffer.from("pieces") });
      writeNemo(`${path}.again`, { config: original.config, weights, tokenizer: Buffer.from("pieces") });
      expect(readFileSync(path).equals(readFileSync(`${path}.again`))).toBe(true);
      using again = await openNemo(path);
      expect(again.config).toEqual(original.config);
    }
    using checkpoint = await openCheckpoint(path);
    expect(described(checkpoint.weights)).toEqual(expectedTensors(model));
    expect(Buffer.from(checkpoint.tokenizerFiles.get("tokenizer.model")?.() ?? []).toString()).toBe("pieces");
  });

  it.each(["nemotron", "llama"] as const)("takes the shape of %s from config.json", async (model) => {
    const json: unknown = JSON.parse(readFileSync(join(fixture(model), "config.json"), "utf8"));
    using original = await openNemo(fixture(model === "nemotron" ? "zarr.nemo" : "llama-tp2.nemo"));
    expect(megatronConfig(json)).toEqual({ ...original.config, vocabSize: 20 });
    expect(() => megatronConfig({ ...(json as object), rope_scaling: { type: "yarn", factor: 4 } })).toThrow(
      "rope_scaling.rope_type: expected default or linear or llama3",
    );
  });

  it.each([
    { type: "linear", factor: 2.5 },
    {
      rope_type: "llama3",
      factor: 8,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 8192,
    },
  ])("keeps stretched rotary positions: %o", async (scaling) => {
    const json = JSON.parse(readFileSync(join(fixture("llama"), "config.json"), "utf8")) as object;
    const path = join(work, `scaled-${scaling.factor}.nemo`);
    using weights = openCheckpointFolder(fixture("llama"));
    writeNemo(path, { config: megatronConfig({ ...json, rope_scaling: scaling }), weights });
    using checkpoint = await openCheckpoint(path);
    expect(checkpoint.config).toMatchObject({ rope_scaling: scaling });
  });

  it("refuses what NeMo has no word for", () => {
    const json = JSON.parse(readFileSync(join(fixture("llama"), "config.json"), "utf8")) as object;
    using weights = openCheckpointFolder(fixture("llama"));
    const scaling = { rope_type: "llama3", factor: 32, low_freq_factor: 1, high_freq_factor: 4 };
    const config = megatronConfig({ ...json, rope_scaling: scaling });
    expect(() => writeNemo(join(work, "other.nemo"), { config, weights })).toThrow(
      "rope_scaling: expected factor 8, got 32",
    );
    const mistral = { ...json, model_type: "mistral", max_position_embeddings: 8192 };
    expect(() => megatronConfig(mistral)).toThrow("sliding_window: expected null, got 4096");
    expect(megatronConfig({ ...mistral, sliding_window: 8192 }).maxPositions).toBe(8192);
  });

  it("refuses weights of another shape, naming tensor, expected and found, and leaves nothing behind", async () => {
    using original = await openNemo(fixture("zarr.nemo"));
    using weights = openCheckpointFolder(fixture("nemotron"));
    const folder = mkdtempSync(join(work, "refused-"));
    const config = { ...original.config, ffnWidth: 16 };
    expect(() => writeNemo(join(folder, "a.nemo"), { config, weights })).toThrow(
      /expected 'model\.layers\.0\.mlp\.up_proj\.weight' of shape \(16, 8\) in .*, got \(12, 8\)/,
    );
    const empty = tensorTable("nowhere", new Map());
    expect(() => writeNemo(join(folder, "a.nemo"), { config, weights: empty })).toThrow("expected a tensor");
    expect(readdirSync(folder)).toEqual([]);
  });
});
