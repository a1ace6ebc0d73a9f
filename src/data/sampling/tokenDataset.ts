/**
 * Samples of S + 1 token ids by number: what the loader needs, whatever stands behind it (one file, a blend).
 */

/** Stands in a sample where the text has ended; no tokenizer has this id. */
export const paddingId = -1;

export interface TokenDataset {
  /** S: inputs per sample. */
  readonly sequenceLength: number;
  readonly numSamples: number;
  /** The same for the same data and options: a resumed run can tell that it continues with the same samples. */
  readonly fingerprint: string;
  /**
   * Puts the S + 1 ids of sample `index` into `out` from `at` on; `paddingId` after the end of the text.
   * Throws DataError, FileError.
   */
  readSample(index: number, out: Int32Array, at?: number): void;
}
