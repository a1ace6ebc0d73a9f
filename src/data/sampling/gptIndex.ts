/**
 * Which tokens make sample k, in Megatron's GPTDataset semantics. Documents (shuffled, epoch after epoch) lie end to end;
 * sample j is the S + 1 tokens from position j * S on, so that neighbours share one token and each token is a target once;
 * then the samples are shuffled. All indices are pure functions of their arguments: no files here.
 * Source: Megatron-LM's megatron/core/datasets/gpt_dataset.py and helpers.cpp.
 */
import { ConfigError, DataError } from "../../base/index.ts";
import { NumpyRandomState } from "./numpyRandom.ts";

/** A last epoch that gives less than this share of an epoch's samples is shuffled by itself. */
const separateEpochShare = 0.8;
/** Index entries are 32-bit; that is 17 T tokens at sequence length 4096. */
const largestCount = 2 ** 32 - 2;

export interface GptIndexOptions {
  /** Tokens of every sequence of the data set. */
  lengths: Int32Array;
  /** The sequences to use. */
  documents: { readonly begin: number; readonly end: number };
  /** S: tokens per sample, not counting the one more that makes the last target. */
  sequenceLength: number;
  /** Samples wanted; undefined for those of one epoch. */
  numSamples?: number | undefined;
  seed: number;
  /** False keeps documents and samples in order. Default true. */
  shuffle?: boolean;
  /** False keeps the last sample although it is shorter than S + 1. Default true. */
  dropLastPartial?: boolean;
}

export interface GptIndex {
  numEpochs: number;
  numTokensPerEpoch: number;
  numSamples: number;
  /** Sequences in the order in which they are laid end to end. */
  documentIndex: Int32Array;
  /** Pairs (entry of documentIndex, token offset in it): the first token of sample j, and of the one after the last. */
  sampleIndex: Uint32Array;
  /** Sample k of the data set is row shuffleIndex[k] of sampleIndex. */
  shuffleIndex: Uint32Array;
}

/** Epochs needed, and whether the last is shuffled by itself. */
export interface EpochPlan {
  numEpochs: number;
  separateLastEpoch: boolean;
  /** Samples that end before the last epoch begins. */
  numSamplesBeforeLastEpoch: number;
}

/** Plans the epochs for `numSamples` samples of S tokens. */
export function planEpochs(
  numTokensPerEpoch: number,
  sequenceLength: number,
  numSamples: number | undefined,
): EpochPlan {
  const samplesOf = (numTokens: number): number => Math.floor((numTokens - 1) / sequenceLength);
  const numEpochs =
    numSamples === undefined
      ? 1
      : Math.max(1, Math.ceil((numSamples * sequenceLength + 1) / numTokensPerEpoch));
  if (numSamples === undefined || numEpochs === 1) {
    return { numEpochs, separateLastEpoch: false, numSamplesBeforeLastEpoch: 0 };
  }
  const numSamplesBeforeLastEpoch = samplesOf((numEpochs - 1) * numTokensPerEpoch);
  const fromLastEpoch = numSamples - numSamplesBeforeLastEpoch;
  const threshold = Math.trunc(separateEpochShare * samplesOf(numTokensPerEpoch));
  return { numEpochs, separateLastEpoch: fromLastEpoch < threshold, numSamplesBeforeLastEpoch };
}

/** Builds the three indices. Throws ConfigError, DataError. */
export function buildGptIndex(options: GptIndexOptions): GptIndex {
  const { lengths, documents, sequenceLength, numSamples, dropLastPartial = true } = options;
  checkCount("sequenceLength", sequenceLength);
  if (numSamples !== undefined) checkCount("numSamples", numSamples);
  let numTokensPerEpoch = 0;
  for (let document = documents.begin; document < documents.end; document++) {
    numTokensPerEpoch += lengths[document];
  }
  const fewest = dropLastPartial && numSamples === undefined ? sequenceLength + 1 : 2;
  if (numTokensPerEpoch < fewest) {
    throw new DataError(
      "data",
      `expected at least ${fewest} tokens for one sample of sequence length ${sequenceLength}, got ${numTokensPerEpoch} in ${documents.end - documents.begin} documents`,
      { hint: "give more text, a larger share of it, or a shorter sequence length" },
    );
  }
  const plan = planEpochs(numTokensPerEpoch, sequenceLength, numSamples);
  const { numEpochs } = plan;
  const numDocuments = documents.end - documents.begin;
  if (
    numEpochs * numDocuments > largestCount ||
    numEpochs * numTokensPerEpoch > largestCount * sequenceLength
  ) {
    throw new ConfigError(
      "data",
      `expected fewer than 2^32 documents and samples over all epochs, got ${numEpochs} epochs of ${numDocuments} documents`,
      { hint: "ask for fewer samples, or put several texts into one document" },
    );
  }
  const random = options.shuffle === false ? undefined : new NumpyRandomState(options.seed);
  const documentIndex = buildDocumentIndex(documents, plan, random);
  const targets = numEpochs * numTokensPerEpoch - 1;
  const built = dropLastPartial ? Math.floor(targets / sequenceLength) : Math.ceil(targets / sequenceLength);
  const sampleIndex = buildSampleIndex(lengths, documentIndex, { sequenceLength, numSamples: built });
  const numFirst = plan.separateLastEpoch ? plan.numSamplesBeforeLastEpoch : built;
  const shuffleIndex = buildShuffleIndex(numFirst, built, random);
  return { numEpochs, numTokensPerEpoch, numSamples: built, documentIndex, sampleIndex, shuffleIndex };
}

function checkCount(name: string, value: number): void {
  if (!Number.isInteger(value) || value < 1 || value > largestCount) {
    throw new ConfigError("data", `${name}: expected a whole number from 1 to 2^32 - 2, got ${value}`);
  }
}

/** The engine answers a length it has no room for with a RangeError. */
function allocate<Elements>(length: number, make: (length: number) => Elements): Elements {
  try {
    return make(length);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new ConfigError("data", `expected memory for an index of ${length} entries, got none`, {
      hint: "ask for fewer samples, or put several texts into one document",
      cause: error,
    });
  }
}

function buildDocumentIndex(
  documents: GptIndexOptions["documents"],
  plan: EpochPlan,
  random: NumpyRandomState | undefined,
): Int32Array {
  const numDocuments = documents.end - documents.begin;
  const index = allocate(plan.numEpochs * numDocuments, (length) => new Int32Array(length));
  for (let entry = 0; entry < index.length; entry++) index[entry] = documents.begin + (entry % numDocuments);
  const numFirst = plan.separateLastEpoch ? index.length - numDocuments : index.length;
  random?.shuffle(index.subarray(0, numFirst));
  random?.shuffle(index.subarray(numFirst));
  return index;
}

/**
 * Walks the documents: each sample takes S + 1 tokens, and the next one begins at the last token taken, which may be the
 * last of its document.
 */
function buildSampleIndex(
  lengths: Int32Array,
  documentIndex: Int32Array,
  options: { sequenceLength: number; numSamples: number },
): Uint32Array {
  const { sequenceLength, numSamples } = options;
  const index = allocate(2 * (numSamples + 1), (length) => new Uint32Array(length));
  let entry = 0;
  let offset = 0;
  for (let row = 1; row <= numSamples; row++) {
    // Tokens still to go from (entry, offset) to the last token of this sample.
    let remaining = sequenceLength;
    let left = lengths[documentIndex[entry]] - offset;
    while (remaining >= left && entry + 1 < documentIndex.length) {
      remaining -= left;
      entry++;
      offset = 0;
      left = lengths[documentIndex[entry]];
    }
    // Only a last sample that is kept although partial runs into the end (which may be an empty sequence).
    offset = Math.max(0, offset + Math.min(remaining, left - 1));
    index[2 * row] = entry;
    index[2 * row + 1] = offset;
  }
  return index;
}

function buildShuffleIndex(
  numFirst: number,
  numSamples: number,
  random: NumpyRandomState | undefined,
): Uint32Array {
  const index = allocate(numSamples, (length) => new Uint32Array(length));
  for (let sample = 0; sample < numSamples; sample++) index[sample] = sample;
  random?.shuffle(index.subarray(0, numFirst));
  random?.shuffle(index.subarray(numFirst));
  return index;
}
