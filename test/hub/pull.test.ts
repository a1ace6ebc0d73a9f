/** Pulling from a hub of our own: what arrives, how it goes on after every kind of interruption, and what is refused. */
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { RandomStream } from "../../src/base/index.ts";
import { findCachedModel, hubSettings, pullModel } from "../../src/checkpoint/index.ts";
import type { PullOptions } from "../../src/checkpoint/index.ts";
import { goodToken, HubTestServer, largeFile, objectOf, smallFile, strangerToken } from "./server.ts";
import type { HubTestModel } from "./server.ts";

const commit = "1234567890abcdef1234567890abcdef12345678";
const pieceBytes = 64 << 10;

function randomBytes(length: number, seed: number): Buffer {
  const random = new RandomStream(seed);
  return Buffer.from(Uint8Array.from({ length }, () => random.nextInt(256)));
}

const weights = randomBytes(700_001, 1);
const model = (): HubTestModel => ({
  commit,
  refs: { v1: commit, "release/2": commit },
  cardData: { license: "other", license_name: "sea-license", license_link: "LICENSE" },
  files: [
    smallFile("README.md", "# A model\n"),
    smallFile("config.json", '{"model_type":"nemotron"}\n'),
    smallFile("empty.txt", ""),
    smallFile("folder/notes ü.txt", "in a folder\n"),
    largeFile("model.safetensors", weights),
    largeFile("pytorch_model.bin", randomBytes(500, 2)),
  ],
});

let server: HubTestServer;
let cache: string;
beforeEach(async () => {
  server = await HubTestServer.start();
  server.models.set("sea/shell", model());
  cache = mkdtempSync(join(tmpdir(), "nautilus-hub-"));
});
afterEach(async () => {
  await server[Symbol.asyncDispose]();
  rmSync(cache, { recursive: true, force: true });
});

function settings(more: Record<string, string> = {}) {
  const base = hubSettings({ HF_ENDPOINT: server.endpoint, HF_HUB_CACHE: cache, HF_HOME: cache, ...more });
  return { ...base, retryDelayMs: 5 };
}

const pull = (options: PullOptions & { env?: Record<string, string>; name?: string } = {}) => {
  const { env, name = "sea/shell", ...rest } = options;
  return pullModel(name, { settings: settings(env), pieceBytes, connections: 4, ...rest });
};

const folder = () => join(cache, "models--sea--shell");
const leftovers = () => readdirSync(join(folder(), "blobs")).filter((name) => name.includes("nautilus"));

describe("what arrives", () => {
  it("is the files, once each, in the layout of Python's library", async () => {
    const pulled = await pull();
    expect(pulled).toMatchObject({ commit, revision: "main", folder: join(folder(), "snapshots", commit) });
    expect(pulled.files).toEqual([
      "README.md",
      "config.json",
      "empty.txt",
      "folder/notes ü.txt",
      "model.safetensors",
    ]);
    for (const file of model().files.filter(({ path }) => path !== "pytorch_model.bin")) {
      const path = join(pulled.folder, file.path);
      expect(readFileSync(path).equals(file.bytes), file.path).toBe(true);
      expect(lstatSync(path).isSymbolicLink()).toBe(true);
      const up = "../".repeat(file.path.split("/").length + 1);
      expect(readlinkSync(path)).toBe(`${up}blobs/${objectOf(file)}`);
    }
    expect(existsSync(join(pulled.folder, "pytorch_model.bin"))).toBe(false);
    expect(readFileSync(join(folder(), "refs", "main"), "utf8")).toBe(commit);
    expect(leftovers()).toEqual([]);
    expect(findCachedModel("sea/shell", cache)).toEqual({
      name: "sea/shell",
      revision: "main",
      commit,
      folder: pulled.folder,
      license: { id: "other", name: "sea-license", link: "LICENSE" },
    });
  });

  it("comes in parallel ranges that cover the file exactly, without the token", async () => {
    server.faults.bytesPerSecond = 400_000;
    await pull({ env: { HF_TOKEN: goodToken } });
    const numPieces = Math.ceil(weights.byteLength / pieceBytes);
    const expected = Array.from({ length: numPieces }, (_, piece) => {
      const end = Math.min(weights.byteLength, (piece + 1) * pieceBytes) - 1;
      return `bytes=${piece * pieceBytes}-${end}`;
    });
    expect(new Set(server.rangesOf("model.safetensors"))).toEqual(new Set(expected));
    expect(server.mostAtOnce).toBeGreaterThan(2);
    expect(server.mostAtOnce).toBeLessThanOrEqual(4);
    expect(
      server.seen.filter(({ server }) => server === "hub").every(({ token }) => token === goodToken),
    ).toBe(true);
    expect(
      server.seen.filter(({ server }) => server === "storage").every(({ token }) => token === undefined),
    ).toBe(true);
  });

  it("comes once: a second pull asks for no file, also from a new commit with the same bytes", async () => {
    await pull();
    server.seen.length = 0;
    await pull();
    expect(server.seen.some(({ server }) => server === "storage")).toBe(false);
    const next = "f".repeat(40);
    server.models.set("sea/shell", { ...model(), commit: next });
    const pulled = await pull();
    expect(pulled.commit).toBe(next);
    expect(server.seen.some(({ server }) => server === "storage")).toBe(false);
    expect(readFileSync(join(pulled.folder, "model.safetensors")).equals(weights)).toBe(true);
  });

  it("follows revisions, patterns and pages of the listing", async () => {
    server.pageSize = 2;
    const pulled = await pull({
      revision: "release/2",
      include: ["*.json", "folder/"],
      exclude: ["README*"],
    });
    expect(pulled.files).toEqual(["config.json", "folder/notes ü.txt"]);
    expect(findCachedModel("sea/shell@release/2", cache)?.commit).toBe(commit);
    expect(findCachedModel("sea/shell", cache)).toBeUndefined();
    expect(findCachedModel(`sea/shell@${commit}`, cache)?.folder).toBe(pulled.folder);
  });

  it("is found offline, and asked of nobody", async () => {
    await expect(pull({ env: { HF_HUB_OFFLINE: "1" } })).rejects.toThrow(
      /expected sea\/shell@main in .* got nothing/,
    );
    await pull();
    server.seen.length = 0;
    const pulled = await pull({ env: { HF_HUB_OFFLINE: "1" } });
    expect(pulled.folder).toBe(join(folder(), "snapshots", commit));
    expect(pulled.license?.name).toBe("sea-license");
    expect(server.seen).toEqual([]);
  });

  it("takes the token from the file of Python's login", async () => {
    writeFileSync(join(cache, "token"), `${goodToken}\n`);
    server.models.set("sea/shell", { ...model(), isPrivate: true });
    await pull();
    expect(server.seen.every(({ server, token }) => server === "storage" || token === goodToken)).toBe(true);
  });
});

describe("interruptions", () => {
  it("broken connections: goes on at the byte where each broke", async () => {
    server.faults.breakAfter.set("model.safetensors", { bytes: 30_000, times: 9 });
    const retries: string[] = [];
    const pulled = await pull({ observer: { retrying: (_, error) => retries.push(error.message) } });
    expect(readFileSync(join(pulled.folder, "model.safetensors")).equals(weights)).toBe(true);
    expect(retries.length).toBeGreaterThanOrEqual(6);
    const starts = server
      .rangesOf("model.safetensors")
      .map((range) => Number(/=(\d+)/.exec(range ?? "")?.[1]));
    expect(starts.filter((start) => start % pieceBytes !== 0).length).toBeGreaterThanOrEqual(6);
  });

  it("a storage that falls silent is left after the time of HF_HUB_DOWNLOAD_TIMEOUT", async () => {
    server.faults.silent.set("model.safetensors", { bytes: 1000, times: 1 });
    const retries: string[] = [];
    await pull({
      env: { HF_HUB_DOWNLOAD_TIMEOUT: "0.3" },
      observer: { retrying: (_, error) => retries.push(error.message) },
    });
    expect(retries.join()).toContain("silence for 0.3 s");
  });

  it("expired addresses are asked for anew, a busy hub is asked again", async () => {
    server.faults.expired.set("model.safetensors", 2);
    server.faults.busy = { status: 429, times: 2 };
    const pulled = await pull();
    expect(readFileSync(join(pulled.folder, "model.safetensors")).equals(weights)).toBe(true);
  });

  it("a storage without ranges: the whole file in one stream, also when it breaks", async () => {
    server.faults.noRanges = true;
    server.faults.breakAfter.set("model.safetensors", { bytes: 200_000, times: 3 });
    const pulled = await pull({ connections: 2 });
    expect(readFileSync(join(pulled.folder, "model.safetensors")).equals(weights)).toBe(true);
  });

  it("what never comes ends in one sentence; what came stays, and the next pull takes only the rest", async () => {
    server.faults.breakAfter.set("model.safetensors", { bytes: 0, times: 1000 });
    await expect(pull()).rejects.toThrow(
      /model\.safetensors: expected an answer|model\.safetensors: expected more bytes/,
    );
    expect(findCachedModel("sea/shell", cache)).toBeUndefined();
    server.faults.breakAfter.clear();
    const stop = new AbortController();
    let received = 0;
    const observer = {
      received: (_: unknown, bytes: number) => {
        received += bytes;
        if (received > 300_000) stop.abort();
      },
    };
    server.faults.bytesPerSecond = 1_000_000;
    await expect(pull({ signal: stop.signal, observer })).rejects.toThrow(/abort/i);
    expect(leftovers()).toHaveLength(2);
    server.faults.bytesPerSecond = Infinity;
    let rest = 0;
    await pull({ observer: { received: (_, bytes) => (rest += bytes) } });
    expect(rest).toBeLessThan(weights.byteLength - 250_000);
    expect(readFileSync(join(folder(), "snapshots", commit, "model.safetensors")).equals(weights)).toBe(true);
    expect(leftovers()).toEqual([]);
  });

  it("a record of an earlier run that is damaged, or bytes that are: the file comes again", async () => {
    const blob = join(folder(), "blobs", objectOf(largeFile("", weights)));
    mkdirSync(join(folder(), "blobs"), { recursive: true });
    for (const record of [
      "{",
      JSON.stringify({
        sizeBytes: weights.byteLength,
        pieceBytes: weights.byteLength,
        done: [weights.byteLength - 5],
      }),
    ]) {
      rmSync(blob, { force: true });
      writeFileSync(`${blob}.nautilus.incomplete`, Buffer.alloc(weights.byteLength));
      writeFileSync(`${blob}.nautilus.json`, record);
      const pulled = await pull();
      expect(readFileSync(join(pulled.folder, "model.safetensors")).equals(weights)).toBe(true);
    }
  });

  it("a second pull at the same time waits for the first and fetches nothing twice", async () => {
    server.faults.bytesPerSecond = 1_000_000;
    const waited: string[] = [];
    const both = await Promise.all([
      pull({ observer: { waiting: (holder) => waited.push(holder) } }),
      pull({ observer: { waiting: (holder) => waited.push(holder) } }),
    ]);
    expect(both[0].folder).toBe(both[1].folder);
    expect(waited).toEqual([`process ${process.pid}`]);
    expect(server.rangesOf("model.safetensors")).toHaveLength(Math.ceil(weights.byteLength / pieceBytes));
  });

  it("--verify finds a damaged file of the cache and fetches it again", async () => {
    const pulled = await pull();
    const path = join(pulled.folder, "model.safetensors");
    const damaged = Buffer.from(weights);
    damaged[77] ^= 1;
    writeFileSync(path, damaged);
    await pull();
    expect(readFileSync(path).equals(weights)).toBe(false);
    await pull({ isVerifying: true });
    expect(readFileSync(path).equals(weights)).toBe(true);
  });
});

describe("refusals", () => {
  const refused: {
    what: string;
    env?: Record<string, string>;
    change?: (model: HubTestModel) => void;
    options?: PullOptions & { name?: string };
    says: RegExp;
  }[] = [
    {
      what: "a gate, without a token",
      change: (model) => (model.gated = "auto"),
      says: /expected access to sea\/shell, got a gated model \(log in and accept its licence at http:\/\/127[^ ]*\/sea\/shell in a browser, then set HF_TOKEN/,
    },
    {
      what: "a gate, with a token of an account that has not accepted",
      env: { HF_TOKEN: strangerToken },
      change: (model) => (model.gated = "manual"),
      says: /gated model \(accept its licence at [^ ]*\/sea\/shell in a browser with the account of HF_TOKEN/,
    },
    {
      what: "a token the hub does not know",
      env: { HF_TOKEN: "hf_old" },
      says: /expected a token that .* knows, got one it refuses/,
    },
    {
      what: "a model that is not there",
      options: { name: "sea/shall" },
      says: /expected a model named sea\/shall at .*, got none/,
    },
    {
      what: "a private model",
      env: { HF_TOKEN: strangerToken },
      change: (model) => (model.isPrivate = true),
      says: /expected a model named sea\/shell at .*, got none \(check the name; the account/,
    },
    {
      what: "a revision that is not there",
      options: { revision: "v9" },
      says: /expected a revision of sea\/shell, got none of that name/,
    },
    {
      what: "a revision that leaves the cache",
      options: { revision: "../../x" },
      says: /--revision: expected a branch/,
    },
    {
      what: "a name that is none",
      options: { name: "../etc/passwd" },
      says: /expected a model's name, got '..\/etc\/passwd'/,
    },
    {
      what: "patterns that match nothing",
      options: { include: ["confg.json"] },
      says: /got none of 6 that match \(did you mean 'config.json'\?\)/,
    },
    {
      what: "a commit that is none",
      change: (model) => (model.commit = "../../../x"),
      says: /expected a commit of 40 hexadecimal digits/,
    },
    ...["../evil", "/etc/evil", "a/../../evil", "a\\..\\evil", "C:evil", "a//b", ".", "a/./b", "nul\0l"].map(
      (path) => ({
        what: `a file named ${JSON.stringify(path)}`,
        change: (model: HubTestModel) => void model.files.push(smallFile(path, "x")),
        says: /expected a file name inside its repository/,
      }),
    ),
  ];
  it.each(refused)("$what", async ({ env, change, options, says }) => {
    change?.(server.models.get("sea/shell") as HubTestModel);
    await expect(pull({ env, ...options })).rejects.toThrow(says);
    expect(existsSync(join(folder(), "refs"))).toBe(false);
    expect(server.seen.some(({ server }) => server === "storage")).toBe(false);
  });

  it("bytes with a wrong checksum are thrown away and never get their name", async () => {
    server.faults.corrupt.set("model.safetensors", 1000);
    await expect(pull()).rejects.toThrow(
      /model\.safetensors: expected sha256 [0-9a-f]{64}, got [0-9a-f]{64}/,
    );
    expect(existsSync(join(folder(), "blobs", objectOf(largeFile("", weights))))).toBe(false);
    expect(leftovers().filter((name) => name.startsWith(objectOf(largeFile("", weights))))).toEqual([]);
    expect(findCachedModel("sea/shell", cache)).toBeUndefined();
    server.faults.corrupt.clear();
    await pull();
  });

  it("a small file with a wrong git hash", async () => {
    const [readme] = model().files;
    const lying = { ...readme, bytes: Buffer.from("# A mdoel\n") };
    const listed = server.models.get("sea/shell") as HubTestModel;
    // The listing is made of the first, the bytes of the second.
    let asked = 0;
    Object.defineProperty(listed.files, 0, { get: () => (asked++ < 3 ? readme : lying) });
    await expect(pull()).rejects.toThrow(/README\.md: expected/);
  });

  it("a model larger than the disk, before a byte is asked for", async () => {
    const sized = { ...model(), files: [smallFile("config.json", "{}")] };
    server.models.set("sea/shell", sized);
    sized.files.push(largeFile("model.safetensors", weights));
    const { byteLength } = weights;
    Object.defineProperty(sized.files[1].bytes, "byteLength", { value: 2 ** 50, configurable: true });
    try {
      await expect(pull()).rejects.toThrow(
        /expected 1024\.00 TiB of room in .*, got .* \(free some space, or set HF_HUB_CACHE/,
      );
    } finally {
      Object.defineProperty(sized.files[1].bytes, "byteLength", { value: byteLength });
    }
    expect(server.seen.some(({ server }) => server === "storage")).toBe(false);
    expect(statSync(folder()).isDirectory()).toBe(true);
  });

  it("a hub that is not there, and one that is no hub", async () => {
    await expect(pull({ env: { HF_ENDPOINT: "http://127.0.0.1:9" } })).rejects.toThrow(
      /expected an answer from http:\/\/127\.0\.0\.1:9, got .* \(check the connection and HF_ENDPOINT/,
    );
    await expect(pull({ env: { HF_ENDPOINT: `${server.endpoint}/nowhere` } })).rejects.toThrow(/got none/);
    expect(() => settings({ HF_ENDPOINT: "hub" })).toThrow(/HF_ENDPOINT: expected an address/);
  });
});
