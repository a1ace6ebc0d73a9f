/**
 * Speed of the tokenizer, and of its training, beside the official libraries on the same texts and the same tokenizer.json.
 *
 *   node bench/tokenizer.ts [--corpus ../shared/corpus] [--vocab 16384] [--train-share 0.1] [--sample-bytes 200e6] [--peer python]
 *
 * Texts are JSON lines with a `text` field (.jsonl.gz; `heldout/` for measuring). Without a corpus this repository's own files
 * are used. `--train-share 1` trains on all of it. Peers: `@huggingface/tokenizers` (a dev dependency); the native `tokenizers`
 * where somebody installed it (`npm i --no-save tokenizers`: 64 MB); Python's `tokenizers` through `--peer <interpreter>`.
 * Speeds are per second of processor time, so that other programs on the machine count less.
 * There is no physical limit to hold this against but memory bandwidth; the share printed is of the fastest peer.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { gunzipSync } from "node:zlib";
import { Tokenizer as OfficialTokenizer } from "@huggingface/tokenizers";
import { z } from "zod";
import { formatBytes, formatDuration } from "../src/base/index.ts";
import { loadTokenizer, saveTokenizer, trainTokenizer, type Tokenizer } from "../src/text/index.ts";

const root = resolve(import.meta.dirname, "..");
const { values: flags } = parseArgs({
  options: {
    corpus: { type: "string", default: resolve(root, "../shared/corpus") },
    vocab: { type: "string", default: "16384" },
    "train-share": { type: "string", default: "0.1" },
    "sample-bytes": { type: "string", default: "200e6" },
    peer: { type: "string" },
  },
});
const record = z.object({ text: z.string() });
const rounds = 5;

/** The texts of every n-th line; whole shards are unpacked, since readline would also cut at U+2028 inside a text. */
function* readShard(path: string, share: number): Generator<string> {
  const bytes = gunzipSync(readFileSync(path));
  for (let start = 0, number = 0; start < bytes.length; number++) {
    const end = bytes.indexOf(10, start);
    if (number % Math.round(1 / share) === 0)
      yield record.parse(JSON.parse(bytes.toString("utf8", start, end))).text;
    start = end + 1;
  }
}

function shardsIn(folder: string): string[] {
  return readdirSync(folder)
    .filter((name) => name.endsWith(".jsonl.gz"))
    .map((name) => join(folder, name));
}

function repositoryTexts(): string[] {
  const names = execFileSync("git", ["ls-files", "*.ts", "*.cpp", "*.cu", "*.md", "*.json"], { cwd: root });
  return names
    .toString("utf8")
    .trim()
    .split("\n")
    .map((name) => readFileSync(join(root, name), "utf8"));
}

function* trainingTexts(): Generator<string> {
  if (!existsSync(flags.corpus)) {
    yield* repositoryTexts();
    return;
  }
  for (const shard of shardsIn(flags.corpus)) yield* readShard(shard, Number(flags["train-share"]));
}

type Group = "English" | "code" | "Chinese, Japanese, Thai" | "other languages";

function groupOf(shard: string): Group {
  const name = shard.replace(/^.*\//, "").replace(".jsonl.gz", "");
  if (name.startsWith("code-")) return "code";
  if (name === "en") return "English";
  return ["zh", "ja", "th"].includes(name) ? "Chinese, Japanese, Thai" : "other languages";
}

function measuredTexts(): Map<string, string[]> {
  const groups = new Map<string, string[]>();
  if (!existsSync(flags.corpus)) return groups.set("this repository", repositoryTexts());
  for (const shard of shardsIn(join(flags.corpus, "heldout"))) {
    const texts = groups.get(groupOf(shard)) ?? [];
    for (const text of readShard(shard, 1)) texts.push(text);
    groups.set(groupOf(shard), texts);
  }
  return groups;
}

function bytesOf(texts: readonly string[]): number {
  return texts.reduce((sum, text) => sum + Buffer.byteLength(text), 0);
}

/** MB of text per second of processor time (all threads of the process), the best of some rounds over all texts. */
async function speed(texts: readonly string[], encode: (text: string) => unknown): Promise<number> {
  let best = 0;
  for (let round = 0; round < rounds; round++) {
    const start = process.cpuUsage();
    for (const text of texts) await encode(text);
    const { user, system } = process.cpuUsage(start);
    best = Math.max(best, bytesOf(texts) / (user + system));
  }
  return best;
}

async function train(): Promise<{ folder: string; tokenizer: Tokenizer }> {
  const start = performance.now();
  const seconds = (): string => ((performance.now() - start) / 1e3).toFixed(1);
  let phase = "";
  let peakBytes = 0;
  const tokenizer = await trainTokenizer({
    texts: trainingTexts(),
    vocabSize: Number(flags.vocab),
    sampleBytes: Number(flags["sample-bytes"]),
    onProgress: (progress) => {
      peakBytes = Math.max(peakBytes, process.memoryUsage.rss());
      if (progress.phase === phase) return;
      phase = progress.phase;
      console.log(`  ${seconds().padStart(6)} s: ${phase}`);
    },
  });
  const took = formatDuration((performance.now() - start) / 1e3);
  console.log(
    `training: ${tokenizer.vocabSize} pieces in ${took}, up to ${formatBytes(peakBytes)} of memory\n`,
  );
  const folder = mkdtempSync(join(tmpdir(), "nautilus-tokenizer-"));
  saveTokenizer(tokenizer, folder);
  return { folder, tokenizer: loadTokenizer(folder) };
}

const nativeLibrary = z.object({
  Tokenizer: z.custom<{
    fromString(json: string): { encode(text: string): Promise<{ getIds(): number[] }> };
  }>((value) => typeof value === "function"),
});

/** The native library from npm, when it is there. */
async function loadNative(json: string): Promise<((text: string) => Promise<number[]>) | undefined> {
  const name = "tokenizers";
  const library: unknown = await import(name).catch(() => undefined);
  const parsed = nativeLibrary.safeParse(library);
  if (!parsed.success) return undefined;
  const tokenizer = parsed.data.Tokenizer.fromString(json);
  return async (text) => (await tokenizer.encode(text)).getIds();
}

const pythonProgram = `
import json, sys, time
from tokenizers import Tokenizer
tokenizer = Tokenizer.from_file(sys.argv[1])
for name, texts in json.load(open(sys.argv[2], encoding="utf8")).items():
    best = 0
    for _ in range(${rounds}):
        start = time.process_time()
        for text in texts: tokenizer.encode(text).ids
        best = max(best, sum(len(t.encode()) for t in texts) / 1e6 / (time.process_time() - start))
    print(json.dumps([name, best]))
`;

function pythonSpeeds(folder: string, groups: Map<string, string[]>): Map<string, number> {
  if (flags.peer === undefined) return new Map();
  const textsFile = join(folder, "texts.json");
  writeFileSync(textsFile, JSON.stringify(Object.fromEntries(groups)));
  const arguments_ = ["-c", pythonProgram, join(folder, "tokenizer.json"), textsFile];
  const { stdout, stderr, status } = spawnSync(flags.peer, arguments_, { encoding: "utf8" });
  if (status !== 0) console.log(`Python peer not measured: ${stderr.trim().split("\n").at(-1)}`);
  const rows = stdout.trim().split("\n").filter(Boolean);
  return new Map(rows.map((row) => z.tuple([z.string(), z.number()]).parse(JSON.parse(row))));
}

const { folder, tokenizer } = await train();
const json = readFileSync(join(folder, "tokenizer.json"), "utf8");
const official = new OfficialTokenizer(JSON.parse(json), {});
const native = await loadNative(json);
if (native === undefined) console.log("native `tokenizers` from npm: not installed, not measured");
const groups = measuredTexts();
groups.set("all together", [...groups.values()].flat());
const python = pythonSpeeds(folder, groups);

const header = ["MB/s a core", "MB", "bytes/token", "Nautilus", "@huggingface/tokenizers", "npm tokenizers"];
console.log([...header, "Python tokenizers", "of the fastest peer"].join(" | "));
for (const [name, texts] of groups) {
  const numTokens = texts.reduce((sum, text) => sum + tokenizer.encode(text).length, 0);
  const ours = await speed(texts, (text) => tokenizer.encode(text));
  const javascript = await speed(texts, (text) => official.encode(text).ids);
  const nativeSpeed = native === undefined ? undefined : await speed(texts, native);
  const peers = [javascript, nativeSpeed, python.get(name)];
  const fastest = Math.max(...peers.map((peer) => peer ?? 0));
  const columns = [
    name,
    (bytesOf(texts) / 1e6).toFixed(2),
    (bytesOf(texts) / numTokens).toFixed(3),
    ours.toFixed(1),
    ...peers.map((peer) => peer?.toFixed(2) ?? "-"),
    `${(ours / fastest).toFixed(1)} x`,
  ];
  console.log(columns.join(" | "));
}
rmSync(folder, { recursive: true });
