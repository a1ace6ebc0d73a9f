/**
 * Folders that `nautilus convert` writes, loaded by Python's transformers: no tensor missing or left over, logits as of the models they came
 * from, token ids as ours. Runs where NAUTILUS_PYTHON names a Python that has transformers.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { loadTokenizer } from "../../src/text/index.ts";
import { fixture, smallConfig, writeModel } from "./model-folders.ts";
import { runCli } from "./run-cli.ts";

const python = process.env["NAUTILUS_PYTHON"];
const noPython = "set NAUTILUS_PYTHON to a Python with transformers to run this";
const work = mkdtempSync(join(tmpdir(), "nautilus-transformers-"));
afterAll(() => rmSync(work, { recursive: true }));

function runPython(program: string, ...parameters: string[]): unknown {
  const { status, stdout, stderr } = spawnSync(python ?? "python3", ["-c", program, ...parameters], {
    encoding: "utf8",
    env: { ...process.env, HF_HUB_OFFLINE: "1" },
  });
  expect(status, stderr).toBe(0);
  return JSON.parse(stdout.trim().split("\n").at(-1) ?? "");
}

async function convert(...args: string[]): Promise<void> {
  const { code, stderr } = await runCli("convert", ...args);
  expect(code, stderr).toBe(0);
}

const compareLogits = `
import json, sys, torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
results = {}
for name, folder, golden in (line.split("|") for line in sys.argv[1:]):
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, dtype=torch.float32, attn_implementation="eager")
    values = load_file(golden)
    with torch.no_grad():
        logits = model(values["tokens"].long(), use_cache=False).logits
    error = float((logits - values["logits"]).abs().max() / values["logits"].abs().max())
    results[name] = {"error": error, "missing": sorted(info["missing_keys"]), "unexpected": sorted(info["unexpected_keys"])}
print(json.dumps(results))
`;

interface Loaded {
  error: number;
  missing: string[];
  unexpected: string[];
}

it("models of every family, of one file and of shards", async (context) => {
  if (python === undefined) return context.skip(noPython);
  const cases = readdirSync(fixture("golden/families"));
  const lines: string[] = [];
  for (const name of cases) {
    const golden = fixture(`golden/families/${name}`);
    await convert(golden, join(work, name), "--shard-size", name.includes("llama") ? "20KB" : "5GB");
    lines.push([name, join(work, name), join(golden, "golden.safetensors")].join("|"));
  }
  for (const name of ["llama", "nemotron", "qwen2"]) {
    const golden = fixture(`golden/families/${name}`);
    await convert(golden, join(work, `${name}.nemo`));
    await convert(join(work, `${name}.nemo`), join(work, `${name}-from-nemo`));
    lines.push(
      [`${name}-from-nemo`, join(work, `${name}-from-nemo`), join(golden, "golden.safetensors")].join("|"),
    );
  }
  const results = Object.entries(runPython(compareLogits, ...lines) as Record<string, Loaded>);
  expect(results).toHaveLength(lines.length);
  for (const [name, { error, missing, unexpected }] of results) {
    expect(error, name).toBeLessThan(1e-6);
    expect([missing, unexpected], name).toEqual([[], []]);
  }
});

const encodeText = `
import json, sys
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
print(json.dumps([tokenizer.encode(text, add_special_tokens=False) for text in json.loads(sys.argv[2])] + [tokenizer.eos_token_id]))
`;

it("the SentencePiece model of a .nemo", async (context) => {
  if (python === undefined) return context.skip(noPython);
  // transformers reads such models through a module that refuses to load beside an older protobuf.
  const probe = spawnSync(python, ["-c", "import sentencepiece.sentencepiece_model_pb2"], {
    encoding: "utf8",
  });
  if (probe.status !== 0) return context.skip(`sentencepiece: ${probe.stderr.trim().split("\n").at(-1)}`);
  await writeModel(join(work, "source"), smallConfig("nemotron-tiny"));
  await convert(join(work, "source"), join(work, "source.nemo"));
  await convert(join(work, "source.nemo"), join(work, "result"));
  const tokenizer = loadTokenizer(join(work, "result"));
  const texts = ["The quick brown fox", "1234 x 99", "Grüße, 世界!", " two  spaces"];
  const expected = texts.map((text) => [...tokenizer.encode(text)]);
  expect(runPython(encodeText, join(work, "result"), JSON.stringify(texts))).toEqual([
    ...expected,
    tokenizer.eosId,
  ]);
});
