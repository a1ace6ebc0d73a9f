/**
 * Speed of SentencePiece models beside the C++ library in Python, on the same texts; ids are compared on the way.
 *
 *   node bench/sentencepiece.ts --peer <python> [--corpus ../shared/corpus] [--vocab 32000] [--model FILE]
 *
 * Without a model one of each kind is trained by the C++ library on a sample of the corpus (JSON lines with a `text` field in
 * .jsonl.gz; `heldout/` for measuring). Speeds are per second of processor time. The share printed is of the C++ library.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { gunzipSync } from "node:zlib";
import { z } from "zod";
import { ConfigError } from "../src/base/index.ts";
import { loadTokenizer } from "../src/text/index.ts";

const { values: flags } = parseArgs({
  options: {
    corpus: { type: "string", default: resolve(import.meta.dirname, "../../shared/corpus") },
    peer: { type: "string" },
    vocab: { type: "string", default: "32000" },
    model: { type: "string" },
  },
});
if (flags.peer === undefined)
  throw new ConfigError("bench", "expected --peer, a Python with sentencepiece, got none");
const peer = flags.peer;
const record = z.object({ text: z.string() });
const rounds = 3;

function textsIn(folder: string, share: number): string[] {
  const shards = readdirSync(folder).filter((name) => name.endsWith(".jsonl.gz"));
  return shards.flatMap((shard) => {
    const lines = gunzipSync(readFileSync(join(folder, shard)))
      .toString("utf8")
      .split("\n")
      .filter(Boolean);
    return lines
      .filter((_, i) => i % Math.round(1 / share) === 0)
      .map((line) => record.parse(JSON.parse(line)).text);
  });
}

function python(program: string, ...given: string[]): string {
  const { stdout, stderr, status } = spawnSync(peer, ["-c", program, ...given], {
    encoding: "utf8",
    maxBuffer: 1 << 30,
  });
  if (status !== 0)
    throw new ConfigError("bench", `expected Python to run, got ${stderr.trim().split("\n").at(-1)}`);
  return stdout;
}

const trainProgram = `
import json, sys, sentencepiece
texts, prefix, kind, size = sys.argv[1:]
options = dict(byte_fallback=True, split_digits=True, normalization_rule_name="identity", remove_extra_whitespaces=False, allow_whitespace_only_pieces=True) if kind == "bpe" else {}
lines = (l for t in json.load(open(texts, encoding="utf8")) for l in t.split("\\n") if l)
sentencepiece.SentencePieceTrainer.train(sentence_iterator=lines, model_prefix=prefix, model_type=kind, vocab_size=int(size), hard_vocab_limit=False, minloglevel=2, num_threads=2, **options)
`;
const measureProgram = `
import json, sys, time, sentencepiece
start = time.process_time()
processor = sentencepiece.SentencePieceProcessor(model_file=sys.argv[1])
load = time.process_time() - start
texts = json.load(open(sys.argv[2], encoding="utf8"))
best = 0
for _ in range(${rounds}):
    start = time.process_time()
    ids = [processor.encode(t) for t in texts]
    best = max(best, sum(len(t.encode()) for t in texts) / 1e6 / (time.process_time() - start))
print(json.dumps([best, load, ids]))
`;

const folder = mkdtempSync(join(tmpdir(), "nautilus-sentencepiece-"));
const models = flags.model === undefined ? ["bpe", "unigram"].map((kind) => trained(kind)) : [flags.model];
const texts = textsIn(join(flags.corpus, "heldout"), 1);
const textsFile = join(folder, "texts.json");
writeFileSync(textsFile, JSON.stringify(texts));
const numBytes = texts.reduce((sum, text) => sum + Buffer.byteLength(text), 0);
console.log(
  "model | pieces | loaded in ms | MB | bytes/token | Nautilus MB/s a core | C++ in Python | share | texts that differ",
);
for (const model of models) {
  const begin = performance.now();
  const tokenizer = loadTokenizer(model);
  const loadMs = performance.now() - begin;
  let best = 0;
  let ours: Int32Array[] = [];
  for (let round = 0; round < rounds; round++) {
    const start = process.cpuUsage();
    ours = texts.map((text) => tokenizer.encode(text));
    const { user, system } = process.cpuUsage(start);
    best = Math.max(best, numBytes / (user + system));
  }
  const [speed, , ids] = z
    .tuple([z.number(), z.number(), z.array(z.array(z.int()))])
    .parse(JSON.parse(python(measureProgram, model, textsFile)));
  const numDifferent = ours.filter((list, i) => JSON.stringify([...list]) !== JSON.stringify(ids[i])).length;
  const numTokens = ours.reduce((sum, list) => sum + list.length, 0);
  const columns = [
    model.replace(/^.*\//, ""),
    tokenizer.vocabSize,
    loadMs.toFixed(0),
    (numBytes / 1e6).toFixed(1),
  ];
  const speeds = [
    (numBytes / numTokens).toFixed(2),
    best.toFixed(1),
    speed.toFixed(1),
    `${(best / speed).toFixed(2)} x`,
  ];
  console.log([...columns, ...speeds, `${numDifferent} of ${texts.length}`].join(" | "));
}
rmSync(folder, { recursive: true });

function trained(kind: string): string {
  const sample = join(folder, "sample.json");
  writeFileSync(sample, JSON.stringify(textsIn(flags.corpus, 0.02)));
  python(trainProgram, sample, join(folder, kind), kind, flags.vocab);
  return join(folder, `${kind}.model`);
}
