/** What a batch of preferences says beside its tokens. */

import type { RowRange } from "../../data/index.ts";

/** Which rows of a batch are which text, and what is compared. */
export interface PreferenceRows {
  /** Rows begin .. end of each text; all that it has targets at, where it shares others. */
  texts: readonly RowRange[];
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
