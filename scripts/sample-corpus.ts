/**
 * Takes a fixed sample of a folder of JSON-lines shards: whole documents in the order of a hash of their ids, up to so many megabytes
 * of text a shard, none of them share-alike.
 * node scripts/sample-corpus.ts CORPUS OUTPUT en=30 de=3 code-typescript=10
 */
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { z } from "zod";

const documentSchema = z.object({ id: z.string(), text: z.string(), license: z.string() });

/** Weights are passed on without conditions of their own, so texts with such conditions stay out. */
const isShareAlike = (license: string): boolean => /-SA-|MPL|GPL/.test(license);
const hashOf = (id: string): string => createHash("sha256").update(id).digest("hex");

function sample(lines: readonly string[], maxBytes: number): string[] {
  const documents = lines
    .map((line) => documentSchema.parse(JSON.parse(line)))
    .filter(({ license }) => !isShareAlike(license))
    .map(({ id, text }) => ({ text, order: hashOf(id) }))
    .toSorted((a, b) => (a.order < b.order ? -1 : 1));
  const taken: string[] = [];
  let numBytes = 0;
  for (const { text } of documents) {
    numBytes += Buffer.byteLength(text);
    if (numBytes > maxBytes) break;
    taken.push(JSON.stringify({ text }));
  }
  return taken;
}

const [corpus, output, ...wanted] = process.argv.slice(2);
if (corpus === undefined || output === undefined || wanted.length === 0) {
  throw new Error("usage: node scripts/sample-corpus.ts CORPUS OUTPUT SHARD=MEGABYTES...");
}
mkdirSync(output, { recursive: true });
for (const entry of wanted) {
  const [shard = "", megabytes = ""] = entry.split("=");
  const lines = gunzipSync(readFileSync(join(corpus, `${shard}.jsonl.gz`)))
    .toString()
    .trimEnd()
    .split("\n");
  const taken = sample(lines, 1e6 * Number(megabytes));
  writeFileSync(join(output, `${shard}.jsonl`), `${taken.join("\n")}\n`);
  process.stdout.write(`${shard}: ${taken.length} of ${lines.length} documents\n`);
}
