import { describe, expect, it } from "vitest";
import type { HubFile } from "./client.ts";
import { chooseFiles, patternOf } from "./select.ts";

const listing = (...paths: string[]): HubFile[] =>
  paths.map((path) => ({ path, sizeBytes: 1, object: "0".repeat(64) }));
const chosen = (paths: string[], patterns = {}): string[] =>
  chooseFiles(listing(...paths), patterns).files.map(({ path }) => path);

describe("the default choice takes the weights once", () => {
  const common = ["README.md", "LICENSE", "config.json", "tokenizer.json", "tokenizer.model"];
  it.each([
    {
      what: "safetensors before PyTorch, TensorFlow, Flax, ONNX and the maker's own layout",
      files: [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
      ],
      left: [
        "pytorch_model-00001-of-00002.bin",
        "pytorch_model.bin.index.json",
        "tf_model.h5",
        "flax_model.msgpack",
        "onnx/model.onnx",
        "original/consolidated.00.pth",
        "consolidated.safetensors",
        "model.fp16.safetensors",
        "model-Q4_0.gguf",
        "training_args.bin",
        "picture.png",
        ".gitattributes",
      ],
    },
    {
      what: "PyTorch where there is nothing better",
      files: ["pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json"],
      left: ["optimizer.pt", "rust_model.ot"],
    },
    { what: "a .nemo", files: ["Nemotron-3-8B-Base-4k.nemo"], left: [] },
    {
      what: "the folders of a NeMo checkpoint",
      files: [
        "model_config.yaml",
        "model_weights/metadata.json",
        "model_weights/layer/0.0.0",
        "weights/__0_0.distcp",
      ],
      left: [],
    },
    {
      what: "one GGUF of many, with its parts",
      files: ["m-f16-00001-of-00002.gguf", "m-f16-00002-of-00002.gguf"],
      left: ["m-Q4_K_M.gguf", "m-Q8_0.gguf"],
    },
    { what: "the maker's layout where it is the only one", files: ["consolidated.00.pth"], left: [] },
    {
      what: "an adapter",
      files: ["adapter_config.json", "adapter_model.safetensors"],
      left: ["adapter_model.bin"],
    },
  ])("$what", ({ files, left }) => {
    expect(chosen([...common, ...files, ...left])).toEqual([...common, ...files]);
  });
});

describe("patterns", () => {
  it("take what they match and nothing else, as Python's fnmatch does", () => {
    const files = ["a.json", "deep/b.json", "c.bin", "d[1].txt"];
    expect(chosen(files, { include: ["*.json"] })).toEqual(["a.json", "deep/b.json"]);
    expect(chosen(files, { include: ["deep/"] })).toEqual(["deep/b.json"]);
    expect(chosen(files, { include: ["*"], exclude: ["*.json"] })).toEqual(["c.bin", "d[1].txt"]);
    expect(chosen(files, { include: ["d[[]1].txt"] })).toEqual(["d[1].txt"]);
    expect(chosen(files, { include: ["[!ab].*"] })).toEqual(["c.bin"]);
    expect(chosen(files, { include: ["?.bin"] })).toEqual(["c.bin"]);
  });

  it("read every letter of regular expressions as itself", () => {
    for (const letter of "\\^$.|+(){}]") {
      expect(patternOf(`a${letter}b`).test(`a${letter}b`), letter).toBe(true);
      expect(patternOf(`a${letter}b`).test("axb"), letter).toBe(false);
    }
  });

  it("that match nothing are an error with the nearest name", () => {
    expect(() => chosen(["model.safetensors"], { include: ["model.safetensor"] })).toThrow(
      /got none of 1 that match \(did you mean 'model.safetensors'\?\)/,
    );
  });
});
