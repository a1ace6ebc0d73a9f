/**
 * Train, validation and test parts of one list of documents, in Megatron's way ("98,1,1": contiguous parts by share) and,
 * for the preparation of data, by turns, so that each part is a fair sample of all files.
 */
import { ConfigError } from "../../base/index.ts";
import { normalizeWeights } from "./numpySum.ts";

export const splitNames = ["train", "valid", "test"] as const;
export type SplitName = (typeof splitNames)[number];

/** Documents `begin` .. `end` of a list. */
export interface DocumentRange {
  readonly begin: number;
  readonly end: number;
}

/** The shares of train, valid and test, summing to one: "98,1,1", "9,1". Throws ConfigError. */
export function parseSplit(split: string): [number, number, number] {
  const parts = split.split(",").map((part) => part.trim());
  const weights = parts.map(Number);
  const isValid =
    parts.length <= 3 &&
    parts.every((part) => part !== "") &&
    weights.every((weight) => Number.isFinite(weight) && weight >= 0) &&
    weights.some((weight) => weight > 0);
  if (!isValid) {
    throw new ConfigError("data", `split: expected up to three shares such as "98,1,1", got "${split}"`, {
      hint: "train, valid, test; at least one above 0",
    });
  }
  const [train, valid, test] = normalizeWeights([...weights, 0, 0].slice(0, 3));
  return [train, valid, test];
}

/** The documents of each part: contiguous, cut at the rounded running shares; undefined for a share of 0. */
export function splitDocuments(
  numDocuments: number,
  split: string,
): Record<SplitName, DocumentRange | undefined> {
  const shares = parseSplit(split);
  let before = 0;
  const ranges = shares.map((share) => {
    const after = before + share;
    const range =
      after > before
        ? { begin: roundHalfEven(before * numDocuments), end: roundHalfEven(after * numDocuments) }
        : undefined;
    before = after;
    return range;
  });
  return { train: ranges[0], valid: ranges[1], test: ranges[2] };
}

/** Python's round(): halves go to the even neighbour. */
export function roundHalfEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}

/**
 * Deals documents to the parts one after the other, each to the part furthest behind its share: exact shares after any
 * number of documents, by position alone, and a validation document as soon as there are two.
 */
export class SplitDealer {
  readonly #shares: readonly number[];
  readonly #counts = [0, 0, 0];
  #numDealt = 0;

  constructor(split: string) {
    this.#shares = parseSplit(split);
  }

  /** The part of the next document. */
  next(): SplitName {
    const turn = Math.max(this.#numDealt, 1);
    let best = 0;
    let mostBehind = -Infinity;
    this.#shares.forEach((share, part) => {
      const behind = share * turn - this.#counts[part];
      if (share > 0 && behind > mostBehind) {
        mostBehind = behind;
        best = part;
      }
    });
    this.#counts[best]++;
    this.#numDealt++;
    return splitNames[best];
  }
}
