/** `nautilus data`: token files made and looked at. */
import { statSync } from "node:fs";
import { join } from "node:path";
import { formatBytes, formatCount, countOf } from "../../base/index.ts";
import { MegatronReader, prepareDataset, readStatistics } from "../../data/index.ts";
import type { Source } from "../../data/index.ts";
import { loadTokenizer } from "../../text/index.ts";
import { labelled } from "../terminal/columns.ts";
import { ProgressLine } from "../terminal/progress.ts";
import { stopSignal } from "../terminal/signals.ts";

/** The verb's options. */
export interface DataPrepareOptions {
  tokenizer: string;
  output: string;
  textKey: string;
  workers?: number;
}

/** A path of the command line as a source: JSON lines by their ending, folders as trees of text. */
export function sourceOf(path: string, textKey: string): Source {
  if (/\.(jsonl|ndjson)(\.(gz|zst))?$/.test(path)) return { kind: "json-lines", paths: path, textKey };
  const isFolder = statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
  return isFolder ? { kind: "tree", paths: path } : path;
}

/** The file of a tokenizer that is named by itself or by its folder. */
function tokenizerFile(path: string): string {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true
    ? join(path, "tokenizer.json")
    : path;
}

export async function prepareCommand(paths: readonly string[], options: DataPrepareOptions): Promise<void> {
  const progress = new ProgressLine();
  using stop = stopSignal("stopping; nothing is written");
  const written = await prepareDataset({
    sources: paths.map((path) => sourceOf(path, options.textKey)),
    output: options.output,
    encoder: { tokenizerPath: tokenizerFile(options.tokenizer) },
    numWorkers: options.workers,
    signal: stop.signal,
    onProgress: ({ readBytes, totalBytes, textBytes, numTokens, megabytesPerSecond }) => {
      const details = `${formatBytes(textBytes)}, ${formatCount(numTokens)} tokens, ${megabytesPerSecond.toFixed(1)} MB/s`;
      progress.update("tokenizing", totalBytes === 0 ? 1 : readBytes / totalBytes, details);
    },
  });
  progress.finish();
  for (const { prefix, statistics } of Object.values(written)) {
    const { numDocuments, numTokens, textBytes } = statistics;
    process.stdout.write(
      `${prefix}.bin: ${countOf(numDocuments, "document")}, ${countOf(numTokens, "token")}, ${(textBytes / numTokens).toFixed(2)} bytes per token\n`,
    );
  }
}

const shownTokens = 32;

export function inspectCommand(prefix: string, options: { tokenizer?: string; json?: boolean }): void {
  const reader = new MegatronReader(prefix);
  try {
    const first = reader.numSequences === 0 ? [] : Array.from(reader.sequence(0).subarray(0, shownTokens));
    const text =
      options.tokenizer === undefined
        ? undefined
        : loadTokenizer(options.tokenizer).decode(first, { specialTokens: "show" });
    const info = {
      prefix,
      dtype: reader.dtype,
      documents: reader.numSequences,
      tokens: reader.numTokens,
      statistics: readStatistics(prefix),
      first,
      text,
    };
    if (options.json === true) process.stdout.write(`${JSON.stringify(info, undefined, 2)}\n`);
    else {
      process.stdout.write(
        `${prefix}: ${info.documents} documents, ${info.tokens} tokens as ${info.dtype}\n${labelled("first: ", first.join(" "))}`,
      );
      if (text !== undefined) process.stdout.write(`${JSON.stringify(text)}\n`);
    }
  } finally {
    reader.close();
  }
}
