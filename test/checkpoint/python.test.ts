/**
 * What we write, read by Python's own libraries. Runs where NAUTILUS_PYTHON names a Python that has safetensors and torch.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { openSafetensors, tensorPieces, writeCheckpointFolder } from "../../src/checkpoint/index.ts";
import { checkpointFixture, expectedTensors } from "./described.ts";

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
