/**
 * The samples of one Megatron data set: an index (gptIndex.ts) over a reader. Does not own the reader.
 * Invariant: every id handed out is in [0, vocabSize) or `paddingId`.
 */
import { createHash } from "node:crypto";
import { basename } from "node:path";
import { DataError, invariant } from "../../base/index.ts";
import { filesOf } from "../megatron/format.ts";
import type { MegatronReader } from "../megatron/reader.ts";
import { readDocumentBytes, readStatistics } from "../megatron/statistics.ts";
import { buildGptIndex, type GptIndex } from "./gptIndex.ts";
import type { DocumentRange } from "./split.ts";
import { paddingId, type TokenDataset } from "./tokenDataset.ts";

export interface GptDatasetOptions {
  reader: MegatronReader;
  /** The sequences to use; all by default. */
  documents?: DocumentRange | undefined;
  sequenceLength: number;
  /** At least so many samples, over as many epochs as that takes; one epoch by default. */
  numSamples?: number | undefined;
  /** Megatron's default. */
  seed?: number | undefined;
  /** False reads the text in order, as held-out loss wants it. Default true. */
  shuffle?: boolean;
  /** False pads the last sample instead of dropping it. Default true. */
  dropLastPartial?: boolean;
  /** Ids at or above this are an error that names the file; unchecked where undefined. */
  vocabSize?: number | undefined;
}

export const defaultSeed = 1234;

export class GptDataset implements TokenDataset {
  readonly reader: MegatronReader;
  readonly documents: DocumentRange;
  readonly sequenceLength: number;
  readonly index: GptIndex;
  readonly fingerprint: string;
  readonly #vocabSize: number;

  /** Throws ConfigError, DataError. */
  constructor(options: GptDatasetOptions) {
    const { reader, sequenceLength, seed = defaultSeed, shuffle = true, dropLastPartial = true } = options;
    const documents = options.documents ?? { begin: 0, end: reader.numSequences };
    invariant(
      documents.begin >= 0 && documents.begin <= documents.end && documents.end <= reader.numSequences,
      `documents ${documents.begin}..${documents.end} of ${reader.numSequences} were asked for`,
    );
    this.reader = reader;
    this.documents = documents;
    this.sequenceLength = sequenceLength;
    this.#vocabSize = options.vocabSize ?? 2 ** 31;
    this.index = naming(filesOf(reader.prefix).bin, () =>
      buildGptIndex({
        lengths: reader.lengths,
        documents,
        sequenceLength,
        numSamples: options.numSamples,
        seed,
        shuffle,
        dropLastPartial,
      }),
    );
    const identity = {
      name: basename(reader.prefix),
      numTokens: reader.numTokens,
      numSequences: reader.numSequences,
      documents,
      sequenceLength,
      numSamples: this.numSamples,
      seed: shuffle ? seed : "in order",
    };
    this.fingerprint = createHash("sha256").update(JSON.stringify(identity)).digest("hex");
  }

  get numSamples(): number {
    return this.index.numSamples;
  }

  readSample(index: number, out: Int32Array, at = 0): void {
    invariant(index >= 0 && index < this.numSamples, `sample ${index} of ${this.numSamples} was read`);
    const { documentIndex, sampleIndex, shuffleIndex } = this.index;
    const row = shuffleIndex[index];
    let entry = sampleIndex[2 * row];
    let offset = sampleIndex[2 * row + 1];
    const end = at + this.sequenceLength + 1;
    let position = at;
    for (; position < end && entry < documentIndex.length; entry++) {
      const sequence = documentIndex[entry];
      const count = Math.min(this.reader.lengths[sequence] - offset, end - position);
      this.reader.read(sequence, offset, count, out, position);
      this.#check(sequence, offset, out.subarray(position, position + count));
      position += count;
      offset = 0;
    }
    out.fill(paddingId, position, end);
  }

  #check(sequence: number, offset: number, ids: Int32Array): void {
    for (let i = 0; i < ids.length; i++) {
      if (ids[i] >= 0 && ids[i] < this.#vocabSize) continue;
      throw new DataError(
        "data",
        `expected token ids below ${this.#vocabSize} in ${filesOf(this.reader.prefix).bin}, got ${ids[i]} at token ${offset + i} of document ${sequence}`,
        { hint: "the data was prepared with another tokenizer", fields: { prefix: this.reader.prefix } },
      );
    }
  }

  /** UTF-8 bytes of the text of these documents; undefined where the data set does not say (Megatron's own). */
  textBytes(): number | undefined {
    const { begin, end } = this.documents;
    const { prefix, numSequences } = this.reader;
    if (begin === 0 && end === numSequences) {
      const statistics = readStatistics(prefix);
      if (statistics !== undefined) return statistics.textBytes;
    }
    const bytes = readDocumentBytes(prefix, numSequences)?.subarray(begin, end);
    return bytes?.reduce((sum, length) => sum + length, 0);
  }
}

/** Adds the file to a sentence about documents that do not know where they lie. */
function naming<Result>(path: string, body: () => Result): Result {
  try {
    return body();
  } catch (error) {
    if (!(error instanceof DataError)) throw error;
    const sentence = error.message.replace(/^\[data\] /, "");
    throw new DataError("data", `${path}: ${sentence}`, { cause: error });
  }
}
