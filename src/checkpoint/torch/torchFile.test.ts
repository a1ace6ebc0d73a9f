import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { checkpointFixture, described, expectedTensors } from "../../../test/checkpoint/described.ts";
import { CheckpointError } from "../../base/index.ts";
import { openFileBytes } from "../bytes.ts";
import { openCheckpointFolder } from "../folder.ts";
import { readPickle } from "./pickle.ts";
import { PickleRecord } from "./pickleValues.ts";
import { ByteCursor } from "../cursor.ts";
import { openTorchFile } from "./torchFile.ts";
import { torchRules } from "./values.ts";

const expected = expectedTensors("torch/expected.json");
const work = mkdtempSync(join(tmpdir(), "nautilus-torch-"));
afterAll(() => rmSync(work, { recursive: true }));

function fileOf(bytes: Uint8Array): string {
  const path = join(work, "file.pt");
  writeFileSync(path, bytes);
  return path;
}

function get(value: unknown, ...path: readonly unknown[]): unknown {
  let current = value;
  for (const key of path) {
    if (current instanceof Map) current = current.get(key);
    else if (current instanceof PickleRecord) current = current.fields.get(key);
    else if (Array.isArray(current)) current = (current as unknown[])[Number(key)];
  }
  return current;
}

describe("files of torch.save", () => {
  it.each([2, 3, 4, 5])("reads tensors of pickle protocol %i: all dtypes, views, transposes", (protocol) => {
    using file = openTorchFile(checkpointFixture(`torch/zip-${protocol}.pt`));
    expect(described(file.tensors)).toEqual(expected);
    expect(get(file.root, "iteration")).toBe(12);
    expect(get(file.root, "text")).toBe("héllo");
    expect(get(file.root, "big")).toBe(2n ** 70n);
    expect(get(file.root, "negative")).toBe(-5);
    expect(get(file.root, "pi")).toBe(3.25);
    expect(get(file.root, "none")).toBe(null);
    expect(get(file.root, "flags")).toEqual([true, false]);
    expect(get(file.root, "bytes")).toEqual(Uint8Array.of(0, 255));
  });

  it("reads the format before PyTorch 1.6", () => {
    using file = openTorchFile(checkpointFixture("torch/legacy.pt"));
    const old = Object.entries(expected).filter(([, { dtype }]) => !/float8|uint(16|32|64)/.test(dtype));
    expect(described(file.tensors)).toEqual(Object.fromEntries(old));
  });

  it("reads archives with zip64 sizes and refuses compressed ones", () => {
    using file = openTorchFile(checkpointFixture("torch/zip64.pt"));
    expect(described(file.tensors)).toEqual(expected);
    expect(() => openTorchFile(checkpointFixture("torch/deflated.pt"))).toThrow(
      "a compressed entry 'zip-2/byteorder' (method 8)",
    );
  });

  it("reads ranges of plain and of strided tensors", () => {
    using file = openTorchFile(checkpointFixture("torch/zip-2.pt"));
    for (const name of ["model.dtypes.float32", "model.transposed", "model.shared.high", "model.permuted"]) {
      const whole = Buffer.from(expected[name].hex, "hex");
      const part = new Uint8Array(10);
      file.tensors.readInto(name, part, 7);
      expect(Buffer.from(part)).toEqual(whole.subarray(7, 17));
    }
  });

  it("reads model folders of .bin files, single and in shards", () => {
    const bin = checkpointFixture("torch/zip-2.pt");
    const single = mkdtempSync(join(work, "single-"));
    copyFileSync(bin, join(single, "pytorch_model.bin"));
    using one = openCheckpointFolder(single);
    expect(described(one)).toEqual(expected);
    const sharded = mkdtempSync(join(work, "sharded-"));
    copyFileSync(bin, join(sharded, "pytorch_model-00001-of-00001.bin"));
    const map = { "model.column": "pytorch_model-00001-of-00001.bin" };
    writeFileSync(join(sharded, "pytorch_model.bin.index.json"), JSON.stringify({ weight_map: map }));
    using many = openCheckpointFolder(sharded);
    expect(described(many)).toEqual({ "model.column": expected["model.column"] });
  });

  it("keeps what rides along in a training checkpoint as inert records", () => {
    using file = openTorchFile(checkpointFixture("torch/training.pt"));
    expect([...file.tensors.names()]).toEqual(["model.weight", "rng_state.0.torch_rng_state"]);
    expect(get(file.root, "args")).toBeInstanceOf(PickleRecord);
    expect(get(file.root, "args", "num_layers")).toBe(2);
    expect(get(file.root, "args", "params_dtype")).toMatchObject({ name: "torch.bfloat16" });
    expect(get(file.root, "checkpoint_version")).toBe(3);
    expect(get(file.root, "set")).toEqual(new Set([1, 2]));
    expect(get(file.root, "size")).toEqual([2, 3]);
  });

  it("refuses TorchScript and files of another kind", () => {
    expect(() => openTorchFile(checkpointFixture("torch/script.pt"))).toThrow("got a TorchScript program");
    expect(() => openTorchFile(fileOf(Buffer.from("hello")))).toThrow("neither a zip archive nor a pickle");
    expect(() => openTorchFile(fileOf(new Uint8Array(0)))).toThrow(CheckpointError);
  });

  it("names a file that is cut short", () => {
    const good = readFileSync(checkpointFixture("torch/zip-2.pt"));
    expect(() => openTorchFile(fileOf(good.subarray(0, 5000)))).toThrow("no directory at its end");
    const legacy = readFileSync(checkpointFixture("torch/legacy.pt"));
    expect(() => openTorchFile(fileOf(legacy.subarray(0, 300)))).toThrow("got its end too early");
    expect(() => openTorchFile(fileOf(legacy.subarray(0, legacy.length - 10)))).toThrow(
      /expected \d+ bytes in .*, got \d+/,
    );
  });

  it.each(["zip-2.pt", "legacy.pt"])("survives any damage to %s", (name) => {
    const good = readFileSync(checkpointFixture(`torch/${name}`));
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(good.byteLength - 1), fc.nat(255)), { minLength: 1, maxLength: 6 }),
        (changes) => {
          const bytes = Buffer.from(good);
          for (const [position, value] of changes) bytes[position] = value;
          try {
            using file = openTorchFile(fileOf(bytes));
            for (const tensor of file.tensors.names()) file.tensors.read(tensor);
          } catch (error) {
            expect(error).toBeInstanceOf(CheckpointError);
          }
        },
      ),
      { numRuns: 200, seed: 2 },
    );
  });
});

describe("the restricted pickle reader", () => {
  const pickles = Object.entries(
    JSON.parse(readFileSync(checkpointFixture("torch/malicious.json"), "utf8")) as Record<string, string>,
  );
  const read = (bytes: Uint8Array): unknown => {
    using source = openFileBytes(fileOf(bytes));
    return readPickle(new ByteCursor(source, "pickle"), torchRules(source.path));
  };

  it.each(pickles)("refuses %s by name", (name, hex) => {
    const what = /^[A-Z_0-9]+$/.test(name) ? `the opcode ${name}` : name;
    expect(() => read(Buffer.from(hex, "hex"))).toThrow(`got ${what} (a pickle can name any code`);
  });

  it.each([
    ["an empty stack", "80022e"],
    ["a mark", "8002282e"],
    ["no value remembered as 7", "800268072e"],
    ["an unknown opcode 0xff", "8002ff"],
    ["its end too early", "80028d00000000000000ff"],
    ["its end too early", "8002588080808041"],
    ["a key without a value", "80027d28 4e752e".replace(" ", "")],
    ["not a dict", "80025d284e4e752e"],
  ])("refuses a malformed pickle: %s", (message, hex) => {
    expect(() => read(Buffer.from(hex, "hex"))).toThrow(message);
  });

  it("refuses containers without an end", () => {
    // A list that holds itself, and a tree of 2^40 leaves in 40 tuples.
    const endless = Buffer.from("80025d71006800612e", "hex");
    const wide = Buffer.concat([
      Buffer.from("80024e", "hex"),
      ...Array.from({ length: 40 }, () => Buffer.from("3286", "hex")),
      Buffer.from("2e", "hex"),
    ]);
    for (const pickle of [endless, wide]) {
      expect(read(pickle)).toBeInstanceOf(Array);
      expect(() => openTorchFile(fileOf(legacyFile(pickle)))).toThrow("containers without an end");
    }
  });
});

/** The pickles of the old format round a root of one's own. */
function legacyFile(root: Uint8Array): Uint8Array {
  return Buffer.concat([
    Buffer.from("80028a0a6cfc9c46f9206aa850192e", "hex"),
    Buffer.from("80024de9032e", "hex"),
    Buffer.from("80027d2e", "hex"),
    root,
    Buffer.from("80025d2e", "hex"),
  ]);
}
