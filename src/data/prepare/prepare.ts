/**
 * Text to tokens on disk: sources are read by this thread, encoded by workers, and written here in the order of the
 * sources, so that the files are the same whatever the number of workers. Memory is bounded by a few units per worker.
 * Nothing appears at the output until all of it is written.
 */
import { availableParallelism } from "node:os";
import { ConfigError, DataError, invariant } from "../../base/index.ts";
import type { DocumentEncoder, EncoderSpec } from "../encoder.ts";
import { dtypeForVocabulary } from "../megatron/format.ts";
import type { DataStatistics } from "../megatron/statistics.ts";
import { MegatronWriter } from "../megatron/writer.ts";
import { SplitDealer, type SplitName, splitNames } from "../sampling/split.ts";
import { listFiles, type SourceFile } from "../sources/files.ts";
import { readUnits } from "../sources/read.ts";
import type { Source } from "../sources/schema.ts";
import type { RawUnit } from "../sources/unit.ts";
import { type EncodedUnit, encodeUnit } from "./encodeUnit.ts";
import { loadEncoder, tokenizerSha256 } from "./loadEncoder.ts";
import { EncodingPool } from "./pool.ts";

/** Starting workers does not pay below this. */
const fewBytesForWorkers = 1 << 21;
const unitsPerWorker = 3;
const progressIntervalMs = 100;

export interface PrepareProgress {
  /** Bytes read of the files on disk (compressed where they are), and of how many. */
  readBytes: number;
  totalBytes: number;
  /** UTF-8 bytes of text encoded so far. */
  textBytes: number;
  numDocuments: number;
  numTokens: number;
  elapsedMs: number;
  /** 10^6 bytes of text per second since the beginning. */
  megabytesPerSecond: number;
}

export interface PrepareOptions {
  sources: readonly Source[];
  /** The path of the data set without `.bin`; with a split, "-train", "-valid" and "-test" are added. */
  output: string;
  /** A tokenizer's file or an encoder module, for workers; or an encoder, which runs on the calling thread. */
  encoder: EncoderSpec | DocumentEncoder;
  /** Default: the cores there are; 0 works on the calling thread. */
  numWorkers?: number | undefined;
  /** Shares of train, valid and test ("98,1,1"), dealt document by document over all sources. */
  split?: string | undefined;
  onProgress?: ((progress: PrepareProgress) => void) | undefined;
  /** Stops the work and removes what was written; `prepareDataset` rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
}

/** A data set that was written. */
export interface PreparedDataset {
  readonly prefix: string;
  readonly statistics: DataStatistics;
}

/** "all" without a split; a part that got no documents is absent. */
export type PreparedDatasets = Partial<Record<SplitName | "all", PreparedDataset>>;

/** Writes the data sets. Throws ConfigError, DataError, FileError, TokenizerError. */
export async function prepareDataset(options: PrepareOptions): Promise<PreparedDatasets> {
  const files = listFiles(options.sources);
  const { encoder: given } = options;
  // Also with workers: the output's dtype depends on it, and a tokenizer that cannot be read is refused before they start.
  const encoder = "encode" in given ? given : await loadEncoder(given);
  const sha256 = "tokenizerPath" in given ? tokenizerSha256(given.tokenizerPath) : null;
  const totalBytes = files.reduce((sum, file) => sum + file.sizeBytes, 0);
  const output = new Output(options.output, options.split, encoder);
  const numWorkers = "encode" in given ? 0 : numWorkersFor(options.numWorkers, totalBytes);
  const pool = "encode" in given || numWorkers === 0 ? undefined : new EncodingPool(given, numWorkers);
  try {
    const report = reporter(options.onProgress, totalBytes, output);
    const encode = (unit: RawUnit): Promise<EncodedUnit> | EncodedUnit =>
      pool === undefined ? encodeUnit(unit, encoder) : pool.encode(unit);
    const reading: Reading = { files, encode, maxInFlight: Math.max(1, numWorkers * unitsPerWorker) };
    for await (const { unit, encoded, readBytes } of encodeAll(reading)) {
      options.signal?.throwIfAborted();
      output.add(unit, encoded);
      report(readBytes, false);
    }
    report(totalBytes, true);
    if (output.numDocuments === 0) throw nothingToWrite(files);
    return output.finish(sha256);
  } finally {
    output[Symbol.dispose]();
    await pool?.close();
  }
}

function numWorkersFor(wanted: number | undefined, totalBytes: number): number {
  if (wanted === undefined) return totalBytes < fewBytesForWorkers ? 0 : availableParallelism();
  if (Number.isInteger(wanted) && wanted >= 0 && wanted <= 1024) return wanted;
  throw new ConfigError("data", `numWorkers: expected a whole number from 0 to 1024, got ${wanted}`);
}

function nothingToWrite(files: readonly SourceFile[]): DataError {
  const what = files.length === 1 ? files[0].file : `${files.length} files`;
  return new DataError("data", `expected at least one document with text in ${what}, got none`, {
    hint: "the files are empty",
  });
}

interface Reading {
  readonly files: readonly SourceFile[];
  readonly encode: (unit: RawUnit) => Promise<EncodedUnit> | EncodedUnit;
  readonly maxInFlight: number;
}

interface EncodedInOrder {
  readonly unit: Pick<RawUnit, "startsDocument" | "endsDocument">;
  readonly encoded: EncodedUnit;
  /** Bytes read from the disk when the unit was cut. */
  readonly readBytes: number;
}

/** All units of all files, encoded, in order; a few are on their way at any time. The first failure in order is thrown. */
async function* encodeAll({ files, encode, maxInFlight }: Reading): AsyncGenerator<EncodedInOrder> {
  const inFlight: Promise<EncodedInOrder>[] = [];
  let readBytes = 0;
  for (const file of files) {
    for await (const unit of readUnits(file, (numBytes) => (readBytes += numBytes))) {
      const { startsDocument, endsDocument } = unit;
      const soFar = readBytes;
      const result = (async (): Promise<EncodedInOrder> => {
        const encoded = await encode(unit);
        return { unit: { startsDocument, endsDocument }, encoded, readBytes: soFar };
      })();
      // It is awaited in its turn; until then its failure is nobody's.
      result.catch(() => {});
      inFlight.push(result);
      const next = inFlight.length < maxInFlight ? undefined : inFlight.shift();
      if (next !== undefined) yield await next;
    }
  }
  for (const result of inFlight) yield await result;
}

function reporter(
  onProgress: PrepareOptions["onProgress"],
  totalBytes: number,
  output: Output,
): (readBytes: number, isLast: boolean) => void {
  const startedMs = performance.now();
  let lastMs = startedMs;
  return (readBytes, isLast) => {
    const nowMs = performance.now();
    if (onProgress === undefined || (!isLast && nowMs - lastMs < progressIntervalMs)) return;
    lastMs = nowMs;
    const elapsedMs = nowMs - startedMs;
    const { textBytes, numDocuments, numTokens } = output;
    const megabytesPerSecond = elapsedMs === 0 ? 0 : textBytes / 1e3 / elapsedMs;
    onProgress({ readBytes, totalBytes, textBytes, numDocuments, numTokens, elapsedMs, megabytesPerSecond });
  };
}

/** The writers of one preparation, one per part, and the dealing of documents to them. */
class Output implements Disposable {
  readonly #encoder: DocumentEncoder;
  readonly #writers: Partial<Record<SplitName | "all", MegatronWriter>> = {};
  readonly #dealer: SplitDealer | undefined;
  readonly #prefix: string;
  #numEmptyDocuments = 0;
  textBytes = 0;
  numDocuments = 0;
  numTokens = 0;
  /** The document whose pieces are being added. */
  #open: { writer: MegatronWriter; numTokens: number; textBytes: number } | undefined;

  constructor(prefix: string, split: string | undefined, encoder: DocumentEncoder) {
    this.#prefix = prefix;
    this.#encoder = encoder;
    this.#dealer = split === undefined ? undefined : new SplitDealer(split);
    // Opened before anything is read: a folder that cannot be written to is found out at once.
    this.#writer(split === undefined ? "all" : "train");
  }

  #writer(part: SplitName | "all"): MegatronWriter {
    const prefix = part === "all" ? this.#prefix : `${this.#prefix}-${part}`;
    return (this.#writers[part] ??= new MegatronWriter(prefix, dtypeForVocabulary(this.#encoder.vocabSize)));
  }

  #nextWriter(): MegatronWriter {
    return this.#writer(this.#dealer?.next() ?? "all");
  }

  add(unit: EncodedInOrder["unit"], encoded: EncodedUnit): void {
    this.#numEmptyDocuments += encoded.numEmptyDocuments;
    if (!unit.startsDocument || !unit.endsDocument) {
      this.#addPiece(unit, encoded);
      return;
    }
    let begin = 0;
    encoded.lengths.forEach((length, document) => {
      const tokens = encoded.tokens.subarray(begin, begin + length);
      this.#nextWriter().addDocument(tokens, encoded.textBytes[document]);
      this.#count(length, encoded.textBytes[document]);
      begin += length;
    });
  }

  #count(numTokens: number, textBytes: number): void {
    this.numDocuments++;
    this.numTokens += numTokens;
    this.textBytes += textBytes;
  }

  #addPiece(unit: EncodedInOrder["unit"], encoded: EncodedUnit): void {
    const open = unit.startsDocument
      ? { writer: this.#nextWriter(), numTokens: 0, textBytes: 0 }
      : this.#open;
    invariant(open !== undefined, "a piece of text has no beginning");
    this.#open = open;
    open.writer.addPart(encoded.tokens);
    open.numTokens += encoded.tokens.length;
    open.textBytes += encoded.textBytes.reduce((sum, length) => sum + length, 0);
    if (!unit.endsDocument) return;
    this.#open = undefined;
    if (open.numTokens === 0) {
      this.#numEmptyDocuments++;
      return;
    }
    open.writer.addPart([this.#encoder.eosId]);
    open.writer.endDocument(open.textBytes);
    this.#count(open.numTokens + 1, open.textBytes);
  }

  finish(sha256: string | null): PreparedDatasets {
    const { vocabSize, eosId } = this.#encoder;
    const result: PreparedDatasets = {};
    for (const part of [...splitNames, "all"] as const) {
      const writer = this.#writers[part];
      if (writer === undefined || writer.numDocuments === 0) continue;
      const known = { vocabSize, eosId, tokenizerSha256: sha256, numEmptyDocuments: this.#numEmptyDocuments };
      result[part] = { prefix: writer.prefix, statistics: writer.finish(known) };
    }
    return result;
  }

  [Symbol.dispose](): void {
    for (const writer of Object.values(this.#writers)) writer[Symbol.dispose]();
  }
}
