/** `nautilus pull` as a process: what it prints, kill -9 in the middle, Ctrl-C, two at once, and a pulled model that generates. */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { RandomStream } from "../../src/base/index.ts";
import { findModel } from "../../src/app/runs/openModel.ts";
import { startCli } from "../app/run-cli.ts";
import { HubTestServer, largeFile, smallFile } from "./server.ts";

const commit = "89abcdef0123456789abcdef0123456789abcdef";
const random = new RandomStream(3);
const weights = Buffer.from(Uint8Array.from({ length: 3_000_000 }, () => random.nextInt(256)));

let server: HubTestServer;
let cache: string;
beforeEach(async () => {
  server = await HubTestServer.start();
  server.models.set("sea/shell", {
    commit,
    cardData: { license: "apache-2.0" },
    files: [
      smallFile("README.md", "# A model\n"),
      smallFile("config.json", "{}\n"),
      largeFile("model.safetensors", weights),
      largeFile("tf_model.h5", Buffer.from("foreign")),
    ],
  });
  cache = mkdtempSync(join(tmpdir(), "nautilus-hub-"));
});
afterEach(async () => {
  await server[Symbol.asyncDispose]();
  rmSync(cache, { recursive: true, force: true });
});

const start = (...args: string[]) =>
  startCli(["pull", ...args], {
    env: {
      HF_ENDPOINT: server.endpoint,
      HF_HUB_CACHE: cache,
      HF_HOME: cache,
      HF_TOKEN: "",
      HF_HUB_OFFLINE: "",
    },
  });
const repository = () => join(cache, "models--sea--shell");
const snapshot = () => join(repository(), "snapshots", commit);

/** Waits until some of the weights are on the disk. */
async function untilUnderWay(): Promise<void> {
  const isUnderWay = (): boolean =>
    existsSync(join(repository(), "blobs")) &&
    readdirSync(join(repository(), "blobs")).some((name) => name.endsWith(".nautilus.json"));
  while (!isUnderWay()) await new Promise((resolve) => setTimeout(resolve, 20));
}

it("prints plan, licence and what was left out, and the folder alone on standard output", async () => {
  const { code, stdout, stderr } = await start("sea/shell").result;
  expect(stderr).toContain("licence: apache-2.0");
  expect(stderr).toMatch(/3 files, 2\.86 MiB; 0 in the cache, 2\.86 MiB to come/);
  expect(stderr).toContain(
    "left out 1 file that repeat the weights or that Nautilus does not read: tf_model.h5",
  );
  expect(stderr).toContain("nautilus generate --model sea/shell");
  expect(stdout).toBe(`${snapshot()}\n`);
  expect(code).toBe(0);
  for (const line of stderr.split("\n")) expect(line.length, line).toBeLessThan(200);
});

it("kill -9 in the middle, again and again: the next one goes on, and the lock of the dead is no obstacle", async () => {
  server.faults.bytesPerSecond = 700_000;
  for (let kill = 0; kill < 2; kill++) {
    const { child, result } = start("sea/shell");
    await untilUnderWay();
    await new Promise((resolve) => setTimeout(resolve, 700));
    child.kill("SIGKILL");
    await result;
    expect(existsSync(join(repository(), "refs", "main"))).toBe(false);
    expect(existsSync(join(snapshot(), "model.safetensors"))).toBe(false);
  }
  server.faults.bytesPerSecond = Infinity;
  server.seen.length = 0;
  const { code, stderr } = await start("sea/shell").result;
  expect(stderr).not.toContain("waiting");
  expect(code).toBe(0);
  expect(readFileSync(join(snapshot(), "model.safetensors")).equals(weights)).toBe(true);
  const first = Number(/=(\d+)-/.exec(server.rangesOf("model.safetensors")[0] ?? "")?.[1]);
  expect(first).toBeGreaterThan(500_000);
});

it("Ctrl-C: says how to go on, exit code 130, nothing under the model's name", async () => {
  server.faults.bytesPerSecond = 300_000;
  const { child, result } = start("sea/shell");
  await untilUnderWay();
  child.kill("SIGINT");
  const { code, stderr } = await result;
  expect(stderr).toContain("stopping: run the same command again to go on");
  expect(code).toBe(130);
  expect(existsSync(join(repository(), "refs"))).toBe(false);
  expect(existsSync(join(cache, ".locks", "models--sea--shell", "nautilus.lock"))).toBe(false);
});

it("two processes at once: one waits, both end well, each byte comes once", async () => {
  server.faults.bytesPerSecond = 3_000_000;
  const results = await Promise.all([start("sea/shell").result, start("sea/shell").result]);
  expect(results.map(({ code }) => code)).toEqual([0, 0]);
  expect(
    results.filter(({ stderr }) => stderr.includes("is pulling this model: waiting for it")),
  ).toHaveLength(1);
  expect(server.rangesOf("model.safetensors")).toHaveLength(1);
});

it("--dry-run shows the files and writes nothing; --json is for programs", async () => {
  const dry = await start("sea/shell", "--dry-run").result;
  expect(dry.stdout).toBe(
    "        10 B  README.md\n         3 B  config.json\n    2.86 MiB  model.safetensors\n",
  );
  expect(existsSync(repository())).toBe(false);
  const { stdout } = await start("sea/shell@main", "--json", "--include", "*.json").result;
  expect(JSON.parse(stdout)).toMatchObject({
    name: "sea/shell",
    commit,
    files: ["config.json"],
    license: { id: "apache-2.0" },
  });
});

it("a gate and a missing model: one sentence, exit code 2, no stack", async () => {
  const gated = server.models.get("sea/shell");
  if (gated !== undefined) gated.gated = "auto";
  const refused = await start("sea/shell").result;
  expect(refused.code).toBe(2);
  expect(refused.stderr).toBe(
    `error: [hub] expected access to sea/shell, got a gated model (log in and accept its licence at ${server.endpoint}/sea/shell in a browser, then set HF_TOKEN to a token of that account)\n`,
  );
  const missing = await start("sea/sheel").result;
  expect(missing.code).toBe(2);
  expect(missing.stderr.trim().split("\n")).toHaveLength(1);
});

it("a pulled model is found by its name, and one that is not is a sentence that says how to fetch it", async () => {
  await start("sea/shell").result;
  vi.stubEnv("HF_HUB_CACHE", cache);
  try {
    expect(findModel("sea/shell")).toBe(snapshot());
    expect(findModel(`sea/shell@${commit}`)).toBe(snapshot());
    expect(() => findModel("sea/none")).toThrow(/fetch it with 'nautilus pull sea\/none'/);
  } finally {
    vi.unstubAllEnvs();
  }
});

it("a cache that cannot be written is named", async () => {
  writeFileSync(join(cache, "file"), "");
  const env = { HF_ENDPOINT: server.endpoint, HF_HUB_CACHE: join(cache, "file", "hub"), HF_TOKEN: "" };
  const { code, stderr } = await startCli(["pull", "sea/shell"], { env }).result;
  expect(stderr).toMatch(
    /^error: \[hub\] expected a writable folder at .*file.*, got a file where a folder should be/,
  );
  expect(code).toBe(2);
});
