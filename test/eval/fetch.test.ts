/** Evaluation data from a hub of our own: fetched by name, checked, kept in the cache's layout, found again offline; and what is refused. */
import { existsSync, lstatSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { z } from "zod";
import { fetchFromHub } from "../../src/app/runs/eval/fetchFromHub.ts";
import { invariant } from "../../src/base/index.ts";
import { hubSettings } from "../../src/checkpoint/index.ts";
import { DataStore, TaskRegistry } from "../../src/eval/index.ts";
import { startCli } from "../app/run-cli.ts";
import { HubTestServer, largeFile, sha256, smallFile } from "../hub/server.ts";
import { noModel } from "./data.ts";

const fixture = (name: string): string => fileURLToPath(new URL(`../fixtures/eval/${name}`, import.meta.url));
const documents = z
  .record(z.string(), z.array(z.record(z.string(), z.unknown())))
  .parse(JSON.parse(readFileSync(fixture("documents.json"), "utf8")));
const commit = "0123456789abcdef0123456789abcdef01234567";
const openbookqa = readFileSync(fixture("openbookqa.parquet"));
const boolq = readFileSync(fixture("boolq.parquet"));
const name = "allenai/openbookqa";
const path = "main/test-00000-of-00001.parquet";

let server: HubTestServer;
let cache: string;
beforeEach(async () => {
  server = await HubTestServer.start();
  server.datasets.set(name, {
    commit,
    cardData: { license: "apache-2.0" },
    files: [
      smallFile("README.md", "# Questions\n"),
      largeFile(path, openbookqa),
      largeFile("main/train-00000-of-00001.parquet", Buffer.from("not asked for")),
      largeFile("additional/test-00000-of-00001.parquet", Buffer.from("another configuration")),
    ],
  });
  cache = mkdtempSync(join(tmpdir(), "nautilus-hub-"));
});
afterEach(async () => {
  await server[Symbol.asyncDispose]();
  rmSync(cache, { recursive: true, force: true });
});

const environment = (more: Record<string, string> = {}) => ({
  HF_ENDPOINT: server.endpoint,
  HF_HUB_CACHE: cache,
  HF_HOME: cache,
  HF_TOKEN: "",
  HF_HUB_OFFLINE: "",
  ...more,
});
const storeOf = (more?: Record<string, string>): DataStore =>
  new DataStore({
    folders: [],
    fetch: fetchFromHub({ ...hubSettings(environment(more)), retryDelayMs: 5 }),
  });
const snapshot = () => join(cache, "datasets--allenai--openbookqa", "snapshots", commit);

async function opened(task: string, store = storeOf()) {
  const found = new TaskRegistry().task(task);
  invariant(found !== undefined, `a task called ${task}`);
  return await found.open(store, { seed: 1, model: noModel });
}

describe("a data set that is not here", () => {
  it("comes from the hub, the asked split alone, into the cache of Python's library", async () => {
    const open = await opened("openbookqa");
    expect(open.numSamples).toBe(documents["openbookqa"].length);
    expect(open.sample(0).requests[0]).toMatchObject({
      context: documents["openbookqa"][0]["question_stem"],
    });
    expect(lstatSync(join(snapshot(), path)).isSymbolicLink()).toBe(true);
    expect(readFileSync(join(cache, "datasets--allenai--openbookqa", "refs", "main"), "utf8")).toBe(commit);
    const blob = join(cache, "datasets--allenai--openbookqa", "blobs", sha256(openbookqa));
    expect(readFileSync(blob)).toEqual(openbookqa);
    expect(server.seen.filter((entry) => entry.server === "storage").map((entry) => entry.path)).toEqual([
      path,
    ]);
    expect(existsSync(join(cache, "models--allenai--openbookqa"))).toBe(false);
  });

  it("is found again offline, without a request", async () => {
    await opened("openbookqa");
    const before = server.seen.length;
    expect((await opened("openbookqa", storeOf({ HF_HUB_OFFLINE: "1" }))).numSamples).toBe(
      documents["openbookqa"].length,
    );
    expect(server.seen).toHaveLength(before);
    await expect(opened("boolq", storeOf({ HF_HUB_OFFLINE: "1" }))).rejects.toThrow(
      /expected the validation split of boolq in the cache .*, got none of its files .*HF_HUB_OFFLINE.*licence: CC BY-SA 3.0/,
    );
  });

  it("is taken from the hub's own conversion where it is published otherwise", async () => {
    const converted = "fedcba9876543210fedcba9876543210fedcba98";
    server.datasets.set("aps/super_glue", {
      commit: converted,
      refs: { "refs/convert/parquet": converted },
      files: [largeFile("boolq/validation/0000.parquet", boolq), smallFile("super_glue.py", "")],
    });
    const open = await opened("boolq");
    expect(open.numSamples).toBe(documents["boolq"].length);
    expect(open.sample(0).document).toMatchObject({ passage: documents["boolq"][0]["passage"] });
  });
});

describe("refusals", () => {
  it("of bytes that are not what the hub's checksum says", async () => {
    server.faults.corrupt.set(path, 9);
    await expect(opened("openbookqa")).rejects.toThrow(/expected sha256 .*, got /);
    expect(existsSync(join(snapshot(), path))).toBe(false);
  });

  it("of a data set that is not there, is gated, or lacks the split", async () => {
    await expect(opened("boolq")).rejects.toThrow(
      /expected a data set named aps\/super_glue at .*, got none/,
    );
    server.datasets.set("aps/super_glue", {
      commit,
      gated: "auto",
      files: [smallFile("boolq/validation-00000-of-00001.parquet", "")],
    });
    await expect(opened("boolq")).rejects.toThrow(
      /expected access to aps\/super_glue, got a gated data set .*\/datasets\/aps\/super_glue/,
    );
    server.datasets.set("aps/super_glue", { commit, files: [smallFile("README.md", "")] });
    await expect(opened("boolq")).rejects.toThrow(
      /expected the validation split of boolq in aps\/super_glue on the hub, got none of its files .*licence: CC BY-SA 3.0/,
    );
  });
});

describe("nautilus eval", () => {
  const run = async (...args: string[]) =>
    await startCli(
      [
        "eval",
        "--model",
        fixture("model"),
        "--device",
        "cpu",
        "--tasks",
        "openbookqa",
        "--data",
        join(cache, "nothing"),
        "--json",
        ...args,
      ],
      { env: environment() },
    ).result;

  it("fetches when told to, and shows the commit and the licence", async () => {
    const without = await run();
    expect(without.stderr).toMatch(/expected the test split of openbookqa .*which --fetch brings/);
    expect(without.code).toBe(2);
    expect(server.seen).toHaveLength(0);
    const { code, stderr, stdout } = await run("--fetch");
    expect(stderr).toContain(`allenai/openbookqa at ${commit} from ${server.endpoint}, licence: apache-2.0`);
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ "n-samples": { openbookqa: { original: 2 } } });
  });
});
