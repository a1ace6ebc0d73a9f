/**
 * Batches of token ids for training and for held-out loss. Position in the data is one number, so that a run resumes
 * exactly and in constant time. Rank r of n takes rows r * B .. (r + 1) * B of each global batch of n * B samples.
 * Knows nothing of devices; every batch has arrays of its own.
 */
import { ConfigError, DataError, invariant } from "../base/index.ts";
import { paddingId, type TokenDataset } from "./sampling/tokenDataset.ts";

/** A target that has no loss; pass it to the loss as its ignore index. */
export const ignoredTarget = -100;

/** B rows of T tokens, N = B * T. */
export interface TokenBatch {
  /** (B * T) inputs. */
  readonly tokens: Int32Array;
  /** (B * T) the token that follows each input, or `ignoredTarget`. */
  readonly targets: Int32Array;
  /** How many targets have a loss. */
  readonly numTargets: number;
  /** B rows of `sequenceLength` T; with `cuSeqLens`, that many ranges, the longest of `sequenceLength`. */
  readonly numSequences: number;
  readonly sequenceLength: number;
  /** (B * T) where documents matter: positions from 0 in each row, or after each end of document with `resetPositionIds`. */
  readonly positions?: Int32Array;
  /** With `resetAttentionMask`: row ranges that attend to themselves alone, over all B * T rows (first 0, last B * T). */
  readonly cuSeqLens?: Int32Array;
}

/** Where a loader stands: samples of all ranks handed out so far. */
export interface LoaderState {
  samplesConsumed: number;
}

export interface TokenLoaderOptions {
  dataset: TokenDataset;
  /** B: rows of a batch on one rank. */
  microBatchSize: number;
  /** The end-of-document id; needed by the three options below. */
  eosId?: number;
  /** Positions begin again after each end of document, which still belongs to its document. Default false. */
  resetPositionIds?: boolean;
  /** No attention over the end of a document. Default false. */
  resetAttentionMask?: boolean;
  /** No loss where the input is the end of a document. Default false. */
  eodMaskLoss?: boolean;
  dataParallelRank?: number;
  dataParallelSize?: number;
  /** What happens to samples that do not fill a global batch: dropped (default), or filled up with rows without loss. */
  lastBatch?: "drop" | "pad";
  state?: LoaderState;
}

export class TokenLoader {
  readonly dataset: TokenDataset;
  readonly microBatchSize: number;
  readonly sequenceLength: number;
  readonly #options: Required<Omit<TokenLoaderOptions, "state" | "eosId">>;
  readonly #eosId: number;
  #samplesConsumed = 0;

  /** Throws ConfigError. */
  constructor(options: TokenLoaderOptions) {
    const { dataset, microBatchSize, eosId, state = { samplesConsumed: 0 }, ...rest } = options;
    this.#options = {
      dataset,
      microBatchSize,
      resetPositionIds: false,
      resetAttentionMask: false,
      eodMaskLoss: false,
      dataParallelRank: 0,
      dataParallelSize: 1,
      lastBatch: "drop",
      ...rest,
    };
    const { dataParallelRank, dataParallelSize } = this.#options;
    expectWhole("microBatchSize", microBatchSize, 1);
    expectWhole("dataParallelSize", dataParallelSize, 1);
    expectWhole("dataParallelRank", dataParallelRank, 0, dataParallelSize - 1);
    if (eosId === undefined && (rest.resetPositionIds || rest.resetAttentionMask || rest.eodMaskLoss)) {
      throw new ConfigError(
        "data",
        "eosId: expected the end-of-document id for resetting at documents, got nothing",
      );
    }
    this.dataset = dataset;
    this.microBatchSize = microBatchSize;
    this.sequenceLength = dataset.sequenceLength;
    this.#eosId = eosId ?? paddingId;
    this.seek(state);
  }

  get #globalBatch(): number {
    return this.microBatchSize * this.#options.dataParallelSize;
  }

  /** Whole batches that `next` gives from the beginning. */
  get numBatches(): number {
    const batches = this.dataset.numSamples / this.#globalBatch;
    return this.#options.lastBatch === "pad" ? Math.ceil(batches) : Math.floor(batches);
  }

  get state(): LoaderState {
    return { samplesConsumed: this.#samplesConsumed };
  }

  /** Goes on after `samplesConsumed` samples. Throws ConfigError for a position that the data does not have. */
  seek(state: LoaderState): void {
    expectWhole("samplesConsumed", state.samplesConsumed, 0, this.dataset.numSamples);
    this.#samplesConsumed = state.samplesConsumed;
  }

  /** The next batch; undefined when the samples are used up. Throws DataError, FileError. */
  next(): TokenBatch | undefined {
    const begin = this.#samplesConsumed;
    const left = this.dataset.numSamples - begin;
    const { lastBatch, dataParallelRank } = this.#options;
    if (left <= 0 || (left < this.#globalBatch && lastBatch === "drop")) return undefined;
    const batch = this.batch(begin + dataParallelRank * this.microBatchSize, this.microBatchSize);
    // Advanced only now, so that a failed read can be tried again.
    this.#samplesConsumed = begin + Math.min(left, this.#globalBatch);
    return batch;
  }

  /** The rest of the batches. */
  *[Symbol.iterator](): Generator<TokenBatch> {
    for (let batch = this.next(); batch !== undefined; batch = this.next()) yield batch;
  }

  /**
   * Samples `firstSample` .. `firstSample + numRows` of the data, wherever the loader stands and whatever its rank.
   * Throws DataError where there are not so many and the last batch is not padded.
   */
  batch(firstSample: number, numRows: number): TokenBatch {
    const { dataset, sequenceLength } = this;
    if (firstSample + numRows > dataset.numSamples && this.#options.lastBatch === "drop") {
      throw new DataError(
        "data",
        `expected ${firstSample + numRows} samples of ${sequenceLength} tokens in the data, got ${dataset.numSamples}`,
        { hint: "build the data set with more samples" },
      );
    }
    const tokens = new Int32Array(numRows * sequenceLength);
    const targets = new Int32Array(numRows * sequenceLength);
    const sample = new Int32Array(sequenceLength + 1);
    let numTargets = 0;
    for (let row = 0; row < numRows; row++) {
      if (firstSample + row < dataset.numSamples) dataset.readSample(firstSample + row, sample);
      else sample.fill(paddingId);
      numTargets += this.#fillRow(sample, tokens, targets, row * sequenceLength);
    }
    return {
      tokens,
      targets,
      numTargets,
      numSequences: numRows,
      sequenceLength,
      ...this.#documentBounds(tokens),
    };
  }

  /** One row from S + 1 ids; gives the number of targets that have a loss. */
  #fillRow(sample: Int32Array, tokens: Int32Array, targets: Int32Array, at: number): number {
    const maskedInput = this.#options.eodMaskLoss ? this.#eosId : paddingId;
    let numTargets = 0;
    for (let t = 0; t < this.sequenceLength; t++) {
      const input = sample[t];
      const target = sample[t + 1];
      tokens[at + t] = input === paddingId ? 0 : input;
      const hasLoss = target !== paddingId && input !== maskedInput;
      targets[at + t] = hasLoss ? target : ignoredTarget;
      if (hasLoss) numTargets++;
    }
    return numTargets;
  }

  #documentBounds(tokens: Int32Array): Partial<TokenBatch> {
    const { resetPositionIds, resetAttentionMask } = this.#options;
    if (!resetPositionIds && !resetAttentionMask) return {};
    const bounds = this.#boundsOf(tokens);
    const positions = new Int32Array(tokens.length);
    let longest = 0;
    for (let i = 0; i + 1 < bounds.length; i++) {
      longest = Math.max(longest, bounds[i + 1] - bounds[i]);
      for (let n = bounds[i]; n < bounds[i + 1]; n++) positions[n] = n - bounds[i];
    }
    // Ranges restart positions by themselves where a model counts them per range; Megatron's two options are apart.
    const rows = tokens.map((_, n) => n % this.sequenceLength);
    return {
      positions: resetPositionIds ? positions : rows,
      ...(resetAttentionMask
        ? { cuSeqLens: Int32Array.from(bounds), numSequences: bounds.length - 1, sequenceLength: longest }
        : {}),
    };
  }

  /** Where documents and rows begin, and the end. */
  #boundsOf(tokens: Int32Array): number[] {
    const bounds = [0];
    for (let n = 1; n < tokens.length; n++) {
      if (n % this.sequenceLength === 0 || tokens[n - 1] === this.#eosId) bounds.push(n);
    }
    bounds.push(tokens.length);
    invariant(tokens.length > 0, "a batch has no tokens");
    return bounds;
  }
}

function expectWhole(name: string, value: number, least: number, most = Number.MAX_SAFE_INTEGER): void {
  if (Number.isInteger(value) && value >= least && value <= most) return;
  const range = most === Number.MAX_SAFE_INTEGER ? `of ${least} or more` : `from ${least} to ${most}`;
  throw new ConfigError("data", `${name}: expected a whole number ${range}, got ${value}`);
}
