/**
 * From a recipe to what training reads: the tokenizer, the token files and the data sets over them. What a run folder holds already is
 * used again when it was made from the same sources with the same tokenizer.
 */
import { createHash } from "node:crypto";
import { copyFileSync, existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import {
  ConfigError,
  formatBytes,
  formatCount,
  makeFolder,
  readJson,
  readText,
  sha256File,
  writeText,
  invariant,
} from "../../base/index.ts";
import {
  openBlend,
  openInOrder,
  openSplits,
  prepareDataset,
  readDocuments,
  TokenLoader,
} from "../../data/index.ts";
import type { BlendMember, OpenDataset, Source, TokenDataset } from "../../data/index.ts";
import { loadTokenizer, saveTokenizer, trainTokenizer } from "../../text/index.ts";
import type { Tokenizer } from "../../text/index.ts";
import type { HostBatch, Recipe, TrainingData } from "../../train/index.ts";
import { ProgressLine } from "../terminal/progress.ts";
import { stopSignal } from "../terminal/signals.ts";
import { showTraining } from "./tokenizer.ts";

export interface PreparedRun extends Disposable {
  tokenizer: Tokenizer;
  tokenizerPath: string;
  data: TrainingData;
  validation: readonly ValidationSet[];
}

/** Held-out text, read in order. */
export interface ValidationSet {
  name: string;
  /** UTF-8 bytes of text per predicted token, where they are known. */
  bytesPerToken: number | undefined;
  batches(maxTokens: number, numSequences: number): Generator<HostBatch>;
}

export interface PrepareRunOptions {
  /** No progress lines. */
  isQuiet: boolean;
}

/** Makes or reuses tokenizer and token files. Throws ConfigError, DataError, FileError, TokenizerError. */
export async function prepareRun(recipe: Recipe, { isQuiet }: PrepareRunOptions): Promise<PreparedRun> {
  using stop = stopSignal("stopping; what is prepared in whole stays");
  const { signal } = stop;
  makeFolder("run", recipe.run);
  const { tokenizer, tokenizerPath } = await prepareTokenizer(recipe, { isQuiet, signal });
  const tokenizerSha256 = sha256File("tokenizer", tokenizerPath);
  const prepare = (source: Source, name: string): Promise<string> =>
    prepareSource(source, { name, recipe, tokenizerPath, tokenizerSha256, isQuiet, signal });

  const members: BlendMember[] = [];
  for (const [index, member] of recipe.data.train.entries()) {
    const prefix = "prefix" in member ? member.prefix : await prepare(member.source, `train-${index}`);
    members.push({ prefix, weight: member.weight });
  }
  const held: { name: string; prefix: string }[] = [];
  for (const { name, source } of recipe.data.validation)
    held.push({ name, prefix: await prepare(source, `validation-${name}`) });

  const { sequenceLength, seed } = recipe;
  const common = { sequenceLength, seed, vocabSize: tokenizer.vocabSize };
  // A little more than the tokens need: the last step may go beyond them.
  const numSamples = Math.ceil((recipe.totalTokens + recipe.batchTokens) / sequenceLength);
  const eosId = tokenizer.eosId;
  if (held.length > 0) {
    const train = openBlend(members, { ...common, numSamples });
    const sets = held.map(({ name, prefix }) => ({ name, opened: openInOrder(prefix, common) }));
    return {
      tokenizer,
      tokenizerPath,
      data: trainingData(train.dataset, recipe, eosId),
      validation: sets.map(({ name, opened }) => validationSet(name, opened, eosId)),
      [Symbol.dispose]: () => {
        train[Symbol.dispose]();
        for (const { opened } of sets) opened[Symbol.dispose]();
      },
    };
  }
  const parts = openSplits(members, {
    ...common,
    split: recipe.data.split,
    numSamples: { train: numSamples },
  });
  invariant(parts.train !== undefined, "a training part");
  return {
    tokenizer,
    tokenizerPath,
    data: trainingData(parts.train.dataset, recipe, eosId),
    validation: parts.valid === undefined ? [] : [validationSet("validation", parts.valid, eosId)],
    [Symbol.dispose]: () => parts[Symbol.dispose](),
  };
}

async function prepareTokenizer(
  recipe: Recipe,
  { isQuiet, signal }: { isQuiet: boolean; signal: AbortSignal },
): Promise<{ tokenizer: Tokenizer; tokenizerPath: string }> {
  const tokenizerPath = join(recipe.run, "tokenizer.json");
  const { path, vocabSize, sampleBytes } = recipe.tokenizer;
  if (path !== undefined) {
    const tokenizer = loadTokenizer(path);
    const source = path.endsWith(".json") ? path : join(path, "tokenizer.json");
    if (source !== tokenizerPath) {
      copyFileSync(source, tokenizerPath);
      rmSync(orderPath(recipe), { force: true });
    }
    return { tokenizer, tokenizerPath };
  }
  if (!existsSync(tokenizerPath)) {
    const sources = recipe.data.train.flatMap((member) => ("source" in member ? [member.source] : []));
    const progress = new ProgressLine();
    const trained = await trainTokenizer({
      texts: textsOf(sources),
      vocabSize,
      sampleBytes,
      onProgress: (step) => {
        if (!isQuiet) showTraining(progress, step);
      },
      signal,
    });
    writeText("run", orderPath(recipe), JSON.stringify({ vocabSize }));
    saveTokenizer(trained, recipe.run);
    progress.finish();
    return { tokenizer: loadTokenizer(tokenizerPath), tokenizerPath };
  }
  const tokenizer = loadTokenizer(tokenizerPath);
  expectVocabulary(recipe, tokenizer, tokenizerPath);
  return { tokenizer, tokenizerPath };
}

/** What size the run's own tokenizer was asked to have: little text gives fewer pieces than that. */
function orderPath({ run }: Recipe): string {
  return join(run, "tokenizer-order.json");
}

const orderSchema = z.object({ vocabSize: z.number().int() });

/** Refuses a run's tokenizer that was made for another `vocabSize`; where nothing tells, one that is larger. Throws ConfigError. */
function expectVocabulary(recipe: Recipe, tokenizer: Tokenizer, tokenizerPath: string): void {
  const { vocabSize } = recipe.tokenizer;
  const path = orderPath(recipe);
  const order = existsSync(path) ? orderSchema.safeParse(readJson("run", path)).data : undefined;
  const made = order?.vocabSize ?? Math.max(vocabSize, tokenizer.vocabSize);
  if (made === vocabSize) return;
  throw new ConfigError(
    "recipe",
    `tokenizer.vocabSize: expected ${made}, for which ${tokenizerPath} was made, got ${vocabSize}`,
    { hint: "choose another 'run', or remove that tokenizer to have one trained anew" },
  );
}

async function* textsOf(sources: readonly Source[]): AsyncGenerator<string> {
  for await (const { text } of readDocuments(sources)) yield text;
}

interface SourceOptions {
  name: string;
  recipe: Recipe;
  tokenizerPath: string;
  tokenizerSha256: string;
  isQuiet: boolean;
  signal: AbortSignal;
}

/** Token files of one source, in the run folder; gives their prefix. */
async function prepareSource(
  source: Source,
  { name, recipe, tokenizerPath, tokenizerSha256, isQuiet, signal }: SourceOptions,
): Promise<string> {
  const folder = join(recipe.run, "data");
  makeFolder("run", folder);
  const prefix = join(folder, name);
  const key = createHash("sha256")
    .update(JSON.stringify([source, tokenizerSha256]))
    .digest("hex");
  const keyPath = `${prefix}.key`;
  if (existsSync(keyPath) && existsSync(`${prefix}.idx`) && readText("run", keyPath) === key) return prefix;
  const progress = new ProgressLine();
  await prepareDataset({
    sources: [source],
    output: prefix,
    encoder: { tokenizerPath },
    numWorkers: recipe.data.workers,
    signal,
    onProgress: ({ readBytes, totalBytes, textBytes, numTokens, megabytesPerSecond }) => {
      if (isQuiet) return;
      const details = `${formatBytes(textBytes)}, ${formatCount(numTokens)} tokens, ${megabytesPerSecond.toFixed(1)} MB/s`;
      progress.update(name.padEnd(22), totalBytes === 0 ? 1 : readBytes / totalBytes, details);
    },
  });
  progress.finish();
  writeText("run", keyPath, key);
  return prefix;
}

function trainingData(dataset: TokenDataset, recipe: Recipe, eosId: number): TrainingData {
  const { eodMaskLoss, resetPositions: resetPositionIds, resetAttention: resetAttentionMask } = recipe.data;
  const options = { dataset, microBatchSize: 1, eosId, eodMaskLoss, resetPositionIds, resetAttentionMask };
  return new TokenLoader(options);
}

function validationSet(name: string, opened: OpenDataset, eosId: number): ValidationSet {
  const { dataset } = opened;
  const bytes = opened.textBytes();
  let numTargets = 0;
  const count = new TokenLoader({ dataset, microBatchSize: 1, eosId, lastBatch: "pad" });
  for (let batch = count.next(); batch !== undefined; batch = count.next()) numTargets += batch.numTargets;
  return {
    name,
    bytesPerToken: bytes === undefined || numTargets === 0 ? undefined : bytes / numTargets,
    *batches(maxTokens, numSequences) {
      const loader = new TokenLoader({ dataset, microBatchSize: numSequences, eosId, lastBatch: "pad" });
      let numTokens = 0;
      for (let batch = loader.next(); batch !== undefined && numTokens < maxTokens; batch = loader.next()) {
        yield batch;
        numTokens += batch.numTargets;
      }
    },
  };
}
