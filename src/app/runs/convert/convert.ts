/** `nautilus convert`: a checkpoint of any format as another, a piece of a tensor at a time. */
import { basename, dirname, extname, resolve } from "node:path";
import { ConfigError, formatBytes, makeFolder, note, warn } from "../../../base/index.ts";
import {
  defaultShardBytes,
  megatronConfig,
  observedView,
  tensorPieces,
  writeCheckpointFolder,
  writeNemo,
} from "../../../checkpoint/index.ts";
import type { TensorSource } from "../../../checkpoint/index.ts";
import { ProgressLine } from "../../terminal/progress.ts";
import { findModel } from "../openModel.ts";
import { cardText, writeCompanions } from "./companions.ts";
import type { CardOptions } from "./companions.ts";
import { checkOutput, replaceAtomically } from "./output.ts";
import { openSource } from "./source.ts";
import type { ConversionSource, WeightDtype } from "./source.ts";
import { verifyConversion } from "./verify.ts";

export type ConversionTarget = "hf" | "nemo";

/** The verb's options. */
export interface ConvertCliOptions {
  to?: ConversionTarget;
  dtype?: WeightDtype;
  shardSize?: number;
  license?: string;
  baseModel?: string;
  verify?: boolean;
  force?: boolean;
  json?: boolean;
}

export async function convertCommand(from: string, to: string, options: ConvertCliOptions): Promise<void> {
  const target = options.to ?? targetOf(to);
  const startMs = performance.now();
  const sourcePath = findModel(from);
  if (resolve(sourcePath) === resolve(to)) {
    throw new ConfigError("convert", `expected another place than the source, got ${to} for both`);
  }
  using source = await openSource(sourcePath, { dtype: options.dtype, temporaryFolder: writableParent(to) });
  const numBytes = sizeOf(source.weights);
  checkOutput({ path: to, isForced: options.force === true, numBytes });
  warnOfLicense(source, options.license);

  const progress = new ProgressLine();
  await replaceAtomically(to, async (temporary) => {
    const watched = watch(source.weights, { label: "writing", numBytes, progress });
    const card = { license: options.license, baseModel: options.baseModel };
    const labels = { card, title: basename(to, ".nemo") };
    if (target === "nemo") writeArchive(source, watched, { path: temporary, labels });
    else writeFolder(source, watched, { folder: temporary, labels, maxShardBytes: options.shardSize });
    progress.finish();
    if (options.verify !== true) return;
    const expected = watch(source.weights, { label: "verifying", numBytes, progress });
    await verifyConversion({ ...source, weights: expected }, temporary);
    progress.finish();
  });
  report(to, { target, source, numBytes, seconds: (performance.now() - startMs) / 1000, options });
}

function targetOf(path: string): ConversionTarget {
  if (path.endsWith(".nemo")) return "nemo";
  if (extname(path) === "" || !/\.(gguf|safetensors|bin|pt|ckpt|tar)$/.test(path)) return "hf";
  throw new ConfigError("convert", `expected a folder or a .nemo to write, got ${path}`, {
    hint: "say what with --to hf or --to nemo",
  });
}

/** A gzipped source is unpacked where the result goes: there must be room for as much anyway. */
function writableParent(path: string): string {
  const parent = dirname(resolve(path));
  makeFolder("convert", parent);
  return parent;
}

function sizeOf(weights: TensorSource): number {
  return [...weights.names()].reduce((total, name) => total + weights.info(name).byteLength, 0);
}

function warnOfLicense({ checkpoint }: ConversionSource, given: string | undefined): void {
  if (given === undefined && checkpoint.card?.license === undefined) {
    warn(`${checkpoint.path} names no license: the model card says "unknown" (name it with --license)`);
  }
}

/** The weights, moving a bar as they are read. */
function watch(
  weights: TensorSource,
  { label, numBytes, progress }: { label: string; numBytes: number; progress: ProgressLine },
): TensorSource {
  let done = 0;
  return observedView(weights, (name, byteLength) => {
    done += byteLength;
    progress.update(label, done / numBytes, `${formatBytes(done)} of ${formatBytes(numBytes)}  ${name}`);
  });
}

interface Labels {
  card: CardOptions;
  title: string;
}

function writeFolder(
  source: ConversionSource,
  weights: TensorSource,
  { folder, labels, maxShardBytes }: { folder: string; labels: Labels; maxShardBytes: number | undefined },
): void {
  makeFolder("convert", folder);
  writeCompanions(source, folder, labels);
  const headers = [...weights.names()].map((name) => ({ name, ...weights.info(name) }));
  writeCheckpointFolder(folder, headers, {
    dataOf: (name) => tensorPieces(weights, name),
    metadata: { format: "pt" },
    maxShardBytes: maxShardBytes ?? defaultShardBytes,
  });
}

function writeArchive(
  source: ConversionSource,
  weights: TensorSource,
  { path, labels }: { path: string; labels: Labels },
): void {
  const { json, checkpoint } = source;
  const { tokenizerFiles } = checkpoint;
  const sentencePiece = sentencePieceName([...tokenizerFiles.keys()]);
  const others = new Map<string, Uint8Array>([["README.md", Buffer.from(cardText(source, labels))]]);
  const nested: string[] = [];
  for (const [name, read] of [...tokenizerFiles, ...checkpoint.otherFiles]) {
    if (name.includes("/")) nested.push(name);
    else if (name !== sentencePiece && !others.has(name)) others.set(name, read());
  }
  if (nested.length > 0) note(`${nested.join(", ")}: a .nemo has no place for folders; left out`);
  writeNemo(path, {
    config: megatronConfig(json),
    weights,
    tokenizer: sentencePiece === undefined ? undefined : tokenizerFiles.get(sentencePiece)?.(),
    otherFiles: others,
  });
}

/** The one model that NeMo's description can name. */
function sentencePieceName(names: readonly string[]): string | undefined {
  const models = names.filter((name) => name.endsWith(".model"));
  return models.length === 1 ? models[0] : models.find((name) => name === "tokenizer.model");
}

interface Outcome {
  target: ConversionTarget;
  source: ConversionSource;
  numBytes: number;
  seconds: number;
  options: ConvertCliOptions;
}

function report(path: string, { target, source, numBytes, seconds, options }: Outcome): void {
  const numTensors = [...source.weights.names()].length;
  const isVerified = options.verify === true;
  if (options.json === true) {
    const { dtype, config } = source;
    const result = {
      path,
      format: target,
      family: config.family,
      dtype,
      numTensors,
      numBytes,
      seconds,
      isVerified,
    };
    process.stdout.write(`${JSON.stringify(result, undefined, 2)}\n`);
    return;
  }
  const rate = formatBytes(numBytes / Math.max(seconds, 1e-3));
  process.stdout.write(
    `${path}: ${numTensors} tensors of ${source.config.family} in ${source.dtype}, ${formatBytes(numBytes)}, ${rate}/s${isVerified ? ", verified" : ""}\n`,
  );
}
