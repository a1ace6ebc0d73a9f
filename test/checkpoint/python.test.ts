/**
 * What we write, read by Python's own libraries. Runs where NAUTILUS_PYTHON names a Python that has safetensors and torch.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import {
  openCheckpointFolder,
  openNemo,
  openSafetensors,
  tensorPieces,
  writeCheckpointFolder,
  writeNemo,
} from "../../src/checkpoint/index.ts";
import { checkpointFixture, described, expectedTensors } from "./described.ts";

const python = process.env["NAUTILUS_PYTHON"];
const noPython = "set NAUTILUS_PYTHON to a Python with torch and safetensors to run this";
const work = mkdtempSync(join(tmpdir(), "nautilus-python-"));
afterAll(() => rmSync(work, { recursive: true }));

function runPython(program: string, ...parameters: string[]): unknown {
  const { status, stdout, stderr } = spawnSync(python ?? "python3", ["-c", program, ...parameters], {
    encoding: "utf8",
  });
  expect(status, stderr).toBe(0);
  return JSON.parse(stdout);
}

it("safetensors folders are read by Python's safetensors", (context) => {
  if (python === undefined) return context.skip(noPython);
  using source = openSafetensors(checkpointFixture("safetensors/all.safetensors"));
  const headers = [...source.names()].map((name) => {
    const { dtype, shape } = source.info(name);
    return { name, dtype, shape };
  });
  writeCheckpointFolder(work, headers, {
    dataOf: (name) => tensorPieces(source, name),
    metadata: { format: "pt" },
    maxShardBytes: 200,
  });
  const program = `
import json, sys, torch
from pathlib import Path
from safetensors import safe_open
folder = Path(sys.argv[1])
index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
found = {}
for name, shard in index.items():
    with safe_open(folder / shard, "pt") as f:
        t = f.get_tensor(name)
    flat = t.flatten()
    data = bytes(flat.view(torch.uint8).tolist()) if flat.numel() else b""
    found[name] = {"dtype": str(t.dtype).removeprefix("torch."), "shape": list(t.shape), "hex": data.hex()}
print(json.dumps(found))`;
  expect(runPython(program, work)).toEqual(expectedTensors("safetensors/expected.json"));
});

it("a .nemo is read by Python: tar, chunks, common.pt", async (context) => {
  if (python === undefined) return context.skip(noPython);
  const path = join(work, "written.nemo");
  {
    using original = await openNemo(checkpointFixture("nemo/zarr.nemo"));
    using weights = openCheckpointFolder(checkpointFixture("nemo/nemotron"));
    writeNemo(path, { config: original.config, weights, tokenizer: Buffer.from("pieces") });
  }
  const program = `
import io, itertools, json, sys, tarfile, torch, yaml
from math import prod
archive = tarfile.open(sys.argv[1], "r:")
files = {m.name: archive.extractfile(m).read() for m in archive if m.isfile()}
config = yaml.safe_load(files["./model_config.yaml"])
assert files["./" + config["tokenizer"]["model"].removeprefix("nemo:")] == b"pieces"
assert torch.load(io.BytesIO(files["./model_weights/common.pt"]), weights_only=True) == {}
assert json.loads(files["./model_weights/metadata.json"])["sharded_backend"] == "zarr"
arrays = {}
for name in files:
    if not name.endswith("/.zarray"):
        continue
    about = json.loads(files[name])
    assert about["dtype"] == "bfloat16" and about["compressor"] is None
    whole = torch.empty(about["shape"], dtype=torch.bfloat16)
    for index in itertools.product(*(range(-(-n // c)) for n, c in zip(about["shape"], about["chunks"]))):
        chunk = torch.frombuffer(bytearray(files[name.replace(".zarray", ".".join(map(str, index)))]), dtype=torch.bfloat16).view(about["chunks"])
        whole[tuple(slice(i * c, (i + 1) * c) for i, c in zip(index, about["chunks"]))] = chunk
    arrays[name.split("/")[2].removeprefix("model.")] = whole
heads, groups, dim = config["num_attention_heads"], config["num_query_groups"], config["kv_channels"]
per_group, total = heads // groups, heads + 2 * groups
rows = {"q": [(per_group + 2) * g + i for g in range(groups) for i in range(per_group)], "k": list(range(per_group, total, per_group + 2)), "v": list(range(per_group + 1, total, per_group + 2))}
names = {"self_attention.linear_qkv.layer_norm_weight": "input_layernorm.weight", "self_attention.linear_qkv.layer_norm_bias": "input_layernorm.bias",
         "mlp.linear_fc1.layer_norm_weight": "post_attention_layernorm.weight", "mlp.linear_fc1.layer_norm_bias": "post_attention_layernorm.bias",
         "self_attention.linear_proj.weight": "self_attn.o_proj.weight", "mlp.linear_fc1.weight": "mlp.up_proj.weight", "mlp.linear_fc2.weight": "mlp.down_proj.weight"}
found = {"model.embed_tokens.weight": arrays["embedding.word_embeddings.weight"], "lm_head.weight": arrays["output_layer.weight"],
         "model.norm.weight": arrays["decoder.final_layernorm.weight"], "model.norm.bias": arrays["decoder.final_layernorm.bias"]}
for layer in range(config["num_layers"]):
    for ours, theirs in names.items():
        found[f"model.layers.{layer}.{theirs}"] = arrays[f"decoder.layers.{ours}"][layer]
    fused = arrays["decoder.layers.self_attention.linear_qkv.weight"][layer].view(total, dim, -1)
    for kind, index in rows.items():
        found[f"model.layers.{layer}.self_attn.{kind}_proj.weight"] = fused[index].reshape(len(index) * dim, -1)
print(json.dumps({name: {"dtype": "bfloat16", "shape": list(t.shape), "hex": bytes(t.contiguous().flatten().view(torch.uint8).tolist()).hex()} for name, t in found.items()}))`;
  using expected = openCheckpointFolder(checkpointFixture("nemo/nemotron"));
  expect(runPython(program, path)).toEqual(described(expected));
});
