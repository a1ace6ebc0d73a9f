/** What a batch of preferences says beside its tokens. */

/** Which rows of a batch are which text, and what is compared. */
export interface PreferenceRows {
  /** Rows begin .. end of each text. */
  texts: readonly { begin: number; end: number }[];
  /** Texts by their number. */
  pairs: readonly {
    chosen: number;
    rejected: number;
    chosenReward?: number | undefined;
    rejectedReward?: number | undefined;
  }[];
  unpaired: readonly { text: number; isDesirable: boolean; mismatched: number }[];
  /** Log-probabilities under the reference by text, where they were made before. */
  reference?: Float64Array | undefined;
}
