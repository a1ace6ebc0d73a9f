import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { checkpointFixture, described } from "../../../test/checkpoint/described.ts";
import { decodeValues, invariant, NautilusError } from "../../base/index.ts";
import { openCheckpointFolder } from "../folder.ts";
import { openCheckpoint } from "../open.ts";
import type { TensorSource } from "../source.ts";
import { openGguf } from "./reader.ts";

const work = mkdtempSync(join(tmpdir(), "nautilus-gguf-"));
afterAll(() => rmSync(work, { recursive: true }));
const fixture = (name: string): string => checkpointFixture(`gguf/${name}`);

function values(source: TensorSource, name: string): number[] {
  const { dtype } = source.info(name);
  invariant(dtype === "f32" || dtype === "f16" || dtype === "bf16", "floats");
  return [...decodeValues(dtype, source.read(name))];
}

describe("GGUF", () => {
  const expected = JSON.parse(readFileSync(fixture("expected.json"), "utf8")) as Record<
    string,
    { shape: number[]; values: number[] }
  >;

  it.each(Object.entries(expected))(
    "reads %s as the gguf package does",
    (name, { shape, values: numbers }) => {
      using file = openGguf(fixture("types.gguf"));
      expect(file.tensors.info(name).shape).toEqual(shape);
      expect(values(file.tensors, name)).toEqual(numbers);
      const whole = file.tensors.read(name);
      const part = new Uint8Array(150);
      file.tensors.readInto(name, part, 77);
      expect(part).toEqual(whole.subarray(77, 227));
    },
  );

  it("reads metadata of every type", () => {
    using file = openGguf(fixture("types.gguf"));
    expect(Object.fromEntries(file.metadata)).toMatchObject({
      "general.architecture": "llama",
      "test.u32": 7,
      "test.i32": -7,
      "test.f32": 0.5,
      "test.bool": true,
      "test.string": "héllo",
      "test.strings": ["a", "", "ü"],
      "test.integers": [1, -2, 3],
      "test.u64": 2 ** 40,
    });
  });

  it("refuses another quantisation by name when it is read", () => {
    using file = openGguf(fixture("types.gguf"));
    expect(() => file.tensors.read("q6_k")).toThrow("as F32, F16, BF16, Q8_0 or Q4_0, got Q6_K");
  });

  it("gives llama's rows in Hugging Face's order", async () => {
    using checkpoint = await openCheckpoint(fixture("llama.gguf"));
    using theirs = openCheckpointFolder(checkpointFixture("nemo/llama"));
    expect(described(checkpoint.weights)).toEqual(described(theirs));
    expect(checkpoint.config).toMatchObject({
      model_type: "llama",
      vocab_size: 20,
      head_dim: 4,
      num_key_value_heads: 2,
      rope_theta: 500000,
      tie_word_embeddings: true,
      bos_token_id: 2,
    });
  });

  it("gives nemotron's norms minus one", async () => {
    using checkpoint = await openCheckpoint(fixture("nemotron.gguf"));
    using theirs = openCheckpointFolder(checkpointFixture("nemo/nemotron"));
    expect([...checkpoint.weights.names()].sort()).toEqual([...theirs.names()].sort());
    for (const name of theirs.names()) {
      const [got, wanted] = [values(checkpoint.weights, name), values(theirs, name)];
      // The file keeps the sum with 1 in f32.
      for (const [i, value] of wanted.entries())
        expect(Math.abs(got[i] - value)).toBeLessThanOrEqual(name.endsWith("norm.weight") ? 2 ** -23 : 0);
    }
    expect(checkpoint.config).toMatchObject({
      model_type: "nemotron",
      partial_rotary_factor: 0.5,
      norm_eps: expect.closeTo(1e-5, 9) as number,
    });
  });

  it("names what no family has", async () => {
    await expect(openCheckpoint(fixture("types.gguf"))).rejects.toThrow(
      "llama.embedding_length: expected a number, got nothing",
    );
    const bytes = readFileSync(fixture("llama.gguf"));
    const renamed = Buffer.from(bytes.toString("latin1").replaceAll("ffn_gate", "ffn_mate"), "latin1");
    writeFileSync(join(work, "renamed.gguf"), renamed);
    await expect(openCheckpoint(join(work, "renamed.gguf"))).rejects.toThrow("got 'blk.0.ffn_mate.weight'");
    const other = Buffer.from(
      bytes
        .toString("latin1")
        .replace(
          "general.architecture\u0008\0\0\0\u0005\0\0\0\0\0\0\0llama",
          "general.architecture\u0008\0\0\0\u0005\0\0\0\0\0\0\0gemma",
        ),
      "latin1",
    );
    writeFileSync(join(work, "other.gguf"), other);
    await expect(openCheckpoint(join(work, "other.gguf"))).rejects.toThrow(
      'expected llama, qwen2, nemotron, got "gemma"',
    );
  });

  it("survives any damage", () => {
    const good = readFileSync(fixture("types.gguf"));
    const path = join(work, "fuzzed.gguf");
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(1200), fc.nat(255)), { minLength: 1, maxLength: 4 }),
        fc.nat(good.byteLength),
        (changes, length) => {
          const bytes = Buffer.from(good);
          for (const [position, value] of changes) bytes[position] = value;
          writeFileSync(path, bytes.subarray(0, length % 2 === 0 ? length : undefined));
          try {
            using file = openGguf(path);
            for (const name of file.tensors.names()) file.tensors.read(name);
          } catch (error) {
            expect(error).toBeInstanceOf(NautilusError);
          }
        },
      ),
      { numRuns: 300, seed: 7 },
    );
  });
});
