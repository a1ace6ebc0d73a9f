/**
 * One cache for two programs: what Nautilus pulled, Python's `huggingface_hub` and `transformers` find offline, and the other way round.
 * Python's client pulls from the test server as well, which shows that the server speaks as the hub does.
 * Runs where NAUTILUS_PYTHON names a Python that has huggingface_hub (the last part: transformers).
 */
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeEach, expect, it } from "vitest";
import { hubSettings, pullDataset, pullModel } from "../../src/checkpoint/index.ts";
import { HubTestServer, largeFile, sha256, smallFile } from "./server.ts";

const python = process.env["NAUTILUS_PYTHON"];
const noPython = "set NAUTILUS_PYTHON to a Python with huggingface_hub to run this";
const commit = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c";
const weights = Buffer.from(Uint8Array.from({ length: 300_000 }, (_, i) => (i * 31) >> 3));
const config = readFileSync(new URL("../fixtures/golden/nemotron-config.json", import.meta.url), "utf8");

let server: HubTestServer;
const folders: string[] = [];
beforeEach(async () => {
  server = await HubTestServer.start();
  server.models.set("sea/shell", {
    commit,
    files: [
      smallFile("config.json", config),
      smallFile("sub/folder/notes.txt", "notes\n"),
      largeFile("model.safetensors", weights),
    ],
  });
});
afterEach(() => server[Symbol.asyncDispose]());
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true });
});

function environment(): Record<string, string> {
  const cache = mkdtempSync(join(tmpdir(), "nautilus-hub-"));
  folders.push(cache);
  return { HF_ENDPOINT: server.endpoint, HF_HUB_CACHE: cache, HF_HOME: cache, HF_HUB_DISABLE_XET: "1" };
}

/** Runs a program that prints JSON. Not spawnSync: the server answers from this process. */
function runPython(program: string, env: Record<string, string>): Promise<unknown> {
  const child = spawn(python ?? "python3", ["-c", program], {
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let [stdout, stderr] = ["", ""];
  child.stdout.on("data", (piece: Buffer) => (stdout += piece.toString()));
  child.stderr.on("data", (piece: Buffer) => (stderr += piece.toString()));
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => {
      if (code === 0) resolve(JSON.parse(stdout));
      else reject(new Error(stderr));
    });
  });
}

const readOffline = `
import hashlib, json
from huggingface_hub import hf_hub_download, scan_cache_dir, snapshot_download, try_to_load_from_cache
folder = snapshot_download("sea/shell", local_files_only=True)
weights = hf_hub_download("sea/shell", "model.safetensors")
scan = scan_cache_dir()
(repo,) = scan.repos
(revision,) = repo.revisions
print(json.dumps({
  "folder": folder,
  "sha256": hashlib.sha256(open(weights, "rb").read()).hexdigest(),
  "notes": open(try_to_load_from_cache("sea/shell", "sub/folder/notes.txt")).read(),
  "warnings": [str(w) for w in scan.warnings],
  "id": repo.repo_id, "refs": sorted(repo.refs), "commit": revision.commit_hash,
  "files": sorted(f.file_name for f in revision.files), "bytes": repo.size_on_disk}))`;

it("Python finds and reads offline what Nautilus pulled", async (context) => {
  if (python === undefined) return context.skip(noPython);
  const env = environment();
  const pulled = await pullModel("sea/shell", { settings: hubSettings(env) });
  expect(await runPython(readOffline, { ...env, HF_HUB_OFFLINE: "1" })).toEqual({
    folder: pulled.folder,
    sha256: sha256(weights),
    notes: "notes\n",
    warnings: [],
    id: "sea/shell",
    refs: ["main"],
    commit,
    files: ["config.json", "model.safetensors", "notes.txt"],
    bytes: weights.byteLength + config.length + 6,
  });
});

it("data sets: Python finds what Nautilus fetched, and Nautilus offline what Python did", async (context) => {
  if (python === undefined) return context.skip(noPython);
  const rows = Buffer.from('{"a": 1}\n');
  server.datasets.set("sea/shells", { commit, files: [largeFile("main/test-0.jsonl", rows)] });
  const program = `
import json
from huggingface_hub import hf_hub_download, scan_cache_dir
path = hf_hub_download("sea/shells", "main/test-0.jsonl", repo_type="dataset")
scan = scan_cache_dir()
print(json.dumps({"path": path, "rows": open(path).read(), "types": [r.repo_type for r in scan.repos], "warnings": len(scan.warnings)}))`;
  const firstOf = ["main/test.jsonl", "main/test-*.jsonl"];
  const expected = (cache: string) => ({
    path: join(cache, "datasets--sea--shells", "snapshots", commit, "main", "test-0.jsonl"),
    rows: '{"a": 1}\n',
    types: ["dataset"],
    warnings: 0,
  });
  const first = environment();
  const pulled = await pullDataset("sea/shells", { firstOf, settings: hubSettings(first) });
  expect(pulled.files).toEqual(["main/test-0.jsonl"]);
  expect(await runPython(program, { ...first, HF_HUB_OFFLINE: "1" })).toEqual(
    expected(first["HF_HUB_CACHE"]),
  );

  const second = environment();
  expect(await runPython(program, second)).toEqual(expected(second["HF_HUB_CACHE"]));
  const offline = hubSettings({ ...second, HF_HUB_OFFLINE: "1" });
  const found = await pullDataset("sea/shells", { firstOf, settings: offline });
  expect(readFileSync(join(found.folder, "main", "test-0.jsonl"))).toEqual(rows);
});

it("Python online downloads nothing again, and Nautilus nothing that Python has", async (context) => {
  if (python === undefined) return context.skip(noPython);
  const first = environment();
  await pullModel("sea/shell", { settings: hubSettings(first) });
  server.seen.length = 0;
  const download = `
import json
from huggingface_hub import snapshot_download
print(json.dumps(snapshot_download("sea/shell")))`;
  expect(await runPython(download, first)).toBe(
    join(first["HF_HUB_CACHE"], "models--sea--shell", "snapshots", commit),
  );
  expect(server.rangesOf("model.safetensors")).toEqual([]);

  const second = environment();
  const theirs = await runPython(download, second);
  expect(server.rangesOf("model.safetensors")).toHaveLength(1);
  const pulled = await pullModel("sea/shell", { settings: hubSettings(second), isVerifying: true });
  expect(pulled.folder).toBe(theirs);
  expect(server.rangesOf("model.safetensors")).toHaveLength(1);
  expect(existsSync(join(pulled.folder, "sub", "folder", "notes.txt"))).toBe(true);
});

it("Python's client is refused by the test server as by the hub", async (context) => {
  if (python === undefined) return context.skip(noPython);
  const model = server.models.get("sea/shell");
  if (model !== undefined) model.gated = "auto";
  const program = `
import json
from huggingface_hub import hf_hub_download, model_info
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
found = []
for call in (lambda: hf_hub_download("sea/shell", "config.json"), lambda: model_info("sea/none"),
             lambda: model_info("sea/shell", revision="v9")):
    try:
        call()
    except (GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError) as error:
        found.append(type(error).__name__)
print(json.dumps(found))`;
  const refused = await runPython(program, { ...environment(), HF_TOKEN: "" });
  expect(refused).toEqual(["GatedRepoError", "RepositoryNotFoundError", "RevisionNotFoundError"]);
});

it("transformers loads the configuration by the model's name", async (context) => {
  if (python === undefined) return context.skip(noPython);
  const env = environment();
  await pullModel("sea/shell", { settings: hubSettings(env) });
  const program = `
import json
try:
    from transformers import AutoConfig
    print(json.dumps(AutoConfig.from_pretrained("sea/shell").model_type))
except ImportError:
    print(json.dumps(None))`;
  const family = await runPython(program, { ...env, HF_HUB_OFFLINE: "1" });
  if (family === null) return context.skip("this Python has no transformers");
  expect(family).toBe("nemotron");
});
