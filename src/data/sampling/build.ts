/**
 * From prefixes on disk to the data sets of a run: splits, blends, and the readers behind them, which the result owns.
 * Sizes and rules as Megatron's BlendedMegatronDatasetBuilder.
 */
import { ConfigError, DataError } from "../../base/index.ts";
import { filesOf } from "../megatron/format.ts";
import { MegatronReader, type ReaderOptions } from "../megatron/reader.ts";
import { expectTokenizer, expectVocabulary } from "../megatron/statistics.ts";
import {
  BlendedDataset,
  blendSizes,
  buildBlendIndex,
  buildExhaustiveBlendIndex,
  checkWeights,
} from "./blend.ts";
import { GptDataset } from "./gptDataset.ts";
import { normalizeWeights } from "./numpySum.ts";
import { type DocumentRange, splitDocuments, type SplitName, splitNames } from "./split.ts";
import type { TokenDataset } from "./tokenDataset.ts";

export interface BlendMember {
  /** The path without `.bin`. */
  prefix: string;
  /** Share of the samples; on all members or on none (then each gives what one epoch of it holds). */
  weight?: number | undefined;
}

export interface DatasetOptions extends ReaderOptions {
  sequenceLength: number;
  /** Samples wanted; one epoch where undefined, which weights do not allow. */
  numSamples?: number | undefined;
  seed?: number | undefined;
  vocabSize?: number | undefined;
  /** Refuses data that is known to come from another tokenizer. */
  tokenizerSha256?: string | undefined;
}

/** A data set and the files it holds open. */
export interface OpenDataset extends Disposable {
  readonly dataset: TokenDataset;
  /** UTF-8 bytes of one epoch of its text; undefined where a member does not say. */
  textBytes(): number | undefined;
}

/** The training data set of a blend of whole prefixes. Throws ConfigError, DataError, FileError. */
export function openBlend(blend: readonly BlendMember[], options: DatasetOptions): OpenDataset {
  const opened = openAll(blend, options);
  return closingOnError(opened, () => buildBlend(blend, opened, { ...options, rangeOf: () => undefined }));
}

export interface SplitOptions extends Omit<DatasetOptions, "numSamples"> {
  /** Shares of train, valid and test, cut contiguously from each prefix: "98,1,1". */
  split: string;
  /** Samples wanted of each part; one epoch where undefined. */
  numSamples?: Partial<Record<SplitName, number>>;
}

/** The three parts of one blend; parts with a share of 0 are absent. Throws ConfigError, DataError, FileError. */
export function openSplits(
  blend: readonly BlendMember[],
  options: SplitOptions,
): Partial<Record<SplitName, OpenDataset>> & Disposable {
  const opened = openAll(blend, options);
  return closingOnError(opened, () => {
    const parts: Partial<Record<SplitName, OpenDataset>> = {};
    for (const name of splitNames) {
      if (splitDocuments(1, options.split)[name] === undefined) continue;
      parts[name] = buildBlend(blend, opened, {
        ...options,
        numSamples: options.numSamples?.[name],
        rangeOf: (reader) => partOf(reader, options.split, name),
      });
    }
    return { ...parts, [Symbol.dispose]: () => closeAll(opened) };
  });
}

/** One prefix read in order, its last sample padded: each of its tokens but the first is a target once. */
export function openInOrder(
  prefix: string,
  options: Omit<DatasetOptions, "numSamples" | "seed"> & { documents?: DocumentRange },
): OpenDataset {
  const opened = openAll([{ prefix }], options);
  return closingOnError(opened, () => {
    const dataset = new GptDataset({
      ...options,
      reader: opened[0],
      shuffle: false,
      dropLastPartial: false,
    });
    return { dataset, textBytes: () => dataset.textBytes(), [Symbol.dispose]: () => closeAll(opened) };
  });
}

function partOf(reader: MegatronReader, split: string, name: SplitName): DocumentRange | undefined {
  const range = splitDocuments(reader.numSequences, split)[name];
  if (range === undefined || range.end > range.begin) return range;
  throw new DataError(
    "data",
    `expected documents in the ${name} part of ${filesOf(reader.prefix).bin}, got none of its ${reader.numSequences} with split "${split}"`,
    { hint: "give this part a larger share, or data with more documents" },
  );
}

function openAll(
  blend: readonly BlendMember[],
  options: Omit<DatasetOptions, "numSamples">,
): MegatronReader[] {
  if (blend.length === 0)
    throw new ConfigError("data", "expected at least one data set in the blend, got none");
  const opened: MegatronReader[] = [];
  return closingOnError(opened, () => {
    for (const { prefix } of blend) {
      if (options.tokenizerSha256 !== undefined) expectTokenizer(prefix, options.tokenizerSha256);
      if (options.vocabSize !== undefined) expectVocabulary(prefix, options.vocabSize);
      opened.push(new MegatronReader(prefix, options));
    }
    return opened;
  });
}

function closeAll(readers: readonly MegatronReader[]): void {
  for (const reader of readers) reader.close();
}

function closingOnError<Result>(readers: readonly MegatronReader[], body: () => Result): Result {
  try {
    return body();
  } catch (error) {
    closeAll(readers);
    throw error;
  }
}

function buildBlend(
  blend: readonly BlendMember[],
  readers: readonly MegatronReader[],
  options: DatasetOptions & { rangeOf: (reader: MegatronReader) => DocumentRange | undefined },
): OpenDataset {
  const { numSamples } = options;
  const given = blend.flatMap(({ weight }) => (weight === undefined ? [] : [weight]));
  if (given.length !== 0 && given.length !== blend.length) {
    throw new ConfigError(
      "data",
      `expected a weight on all ${blend.length} data sets or on none, got ${given.length}`,
    );
  }
  const build = (sizes: readonly (number | undefined)[]): GptDataset[] =>
    readers.map(
      (reader, member) =>
        new GptDataset({ ...options, reader, documents: options.rangeOf(reader), numSamples: sizes[member] }),
    );
  const finish = (dataset: TokenDataset, members: readonly GptDataset[]): OpenDataset => ({
    dataset,
    textBytes: () => {
      const bytes = members.map((member) => member.textBytes());
      return bytes.reduce(
        (sum, next) => (sum === undefined || next === undefined ? undefined : sum + next),
        0,
      );
    },
    [Symbol.dispose]: () => closeAll(readers),
  });

  if (blend.length === 1 && (given.length === 0 || numSamples === undefined)) {
    const members = build([numSamples]);
    return finish(members[0], members);
  }
  if (given.length === 0) {
    const members = build(blend.map(() => undefined));
    const lengths = members.map((member) => member.numSamples);
    const total = lengths.reduce((sum, length) => sum + length, 0);
    const index =
      numSamples === undefined
        ? buildExhaustiveBlendIndex(lengths)
        : buildBlendIndex(normalizeWeights(lengths), Math.min(numSamples, total));
    return finish(new BlendedDataset(members, index), members);
  }
  checkWeights(given);
  if (numSamples === undefined) {
    throw new ConfigError("data", "expected a number of samples for a weighted blend, got none", {
      hint: "set numSamples, or leave the weights out to take one epoch of each data set",
    });
  }
  return weighted(given, numSamples, build, finish);
}

function weighted(
  weights: readonly number[],
  numSamples: number,
  build: (sizes: readonly number[]) => GptDataset[],
  finish: (dataset: TokenDataset, members: readonly GptDataset[]) => OpenDataset,
): OpenDataset {
  const { planned, built } = blendSizes(weights, numSamples);
  const members = build(built.map((size) => Math.max(1, size)));
  const size = planned.reduce((sum, count) => sum + count, 0);
  // Megatron normalises twice; the second time may change the last bit.
  const index = buildBlendIndex(normalizeWeights(normalizeWeights(weights)), size);
  return finish(new BlendedDataset(members, index), members);
}
