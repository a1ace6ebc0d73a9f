/** `nautilus tokenizer`: training and looking. */
import { join } from "node:path";
import { formatBytes, formatCount } from "../../base/index.ts";
import { readDocuments } from "../../data/index.ts";
import type { Source } from "../../data/index.ts";
import { loadTokenizer, saveTokenizer, trainTokenizer } from "../../text/index.ts";
import type { TrainingProgress } from "../../text/index.ts";
import { ProgressLine } from "../terminal/progress.ts";
import { sourceOf } from "./data.ts";
import { stopSignal } from "../terminal/signals.ts";

/** The verb's options. */
export interface TokenizerTrainOptions {
  output: string;
  vocabSize: number;
  sampleBytes: number;
  textKey: string;
  special?: string[];
}

const phases = { read: "reading", count: "counting words", merge: "merging pairs" } as const;

/** One step of tokenizer training on a progress line. */
export function showTraining(progress: ProgressLine, { phase, done, total }: TrainingProgress): void {
  const unit = phase === "merge" ? `${formatCount(done)} pieces` : formatBytes(done);
  if (total === undefined) progress.status(`${phases[phase].padEnd(22)} ${unit}`);
  else progress.update(phases[phase].padEnd(22), total === 0 ? 1 : done / total, unit);
}

export async function trainTokenizerCommand(
  paths: readonly string[],
  options: TokenizerTrainOptions,
): Promise<void> {
  const progress = new ProgressLine();
  using stop = stopSignal("stopping; nothing is written");
  const tokenizer = await trainTokenizer({
    texts: textsOf(paths.map((path) => sourceOf(path, options.textKey))),
    vocabSize: options.vocabSize,
    sampleBytes: options.sampleBytes,
    ...(options.special === undefined ? {} : { specialTokens: options.special }),
    onProgress: (step) => showTraining(progress, step),
    signal: stop.signal,
  });
  saveTokenizer(tokenizer, options.output);
  progress.finish();
  process.stdout.write(`${join(options.output, "tokenizer.json")}: ${tokenizer.vocabSize} pieces\n`);
}

async function* textsOf(sources: readonly Source[]): AsyncGenerator<string> {
  for await (const { text } of readDocuments(sources)) yield text;
}

export function encodeCommand(text: string, options: { tokenizer: string; json?: boolean }): void {
  const tokenizer = loadTokenizer(options.tokenizer);
  const ids = Array.from(tokenizer.encode(text));
  const pieces = ids.map((id) => tokenizer.pieceOf(id));
  if (options.json === true) process.stdout.write(`${JSON.stringify({ ids, pieces })}\n`);
  else
    for (const [index, id] of ids.entries())
      process.stdout.write(`${String(id).padStart(8)}  ${JSON.stringify(pieces[index])}\n`);
}
