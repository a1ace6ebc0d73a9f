/**
 * Learns the merges of a byte-pair encoding: again and again the most frequent pair of neighbouring symbols becomes a piece.
 * Knows nothing of where sequences come from. Invariants: pair counts are exact after every merge; the result depends on the
 * multiset of sequences alone (ties go to the pair of lower ids). Source: Sennrich, Haddow, Birch 2016, algorithm 1, with counts
 * kept up incrementally.
 */
import type { Merge } from "../bpe/definition.ts";
import { PairQueue } from "./pairQueue.ts";
import { PairTable } from "./pairTable.ts";
import type { SymbolSequences } from "./wordCounts.ts";

export interface MergeLearnerOptions {
  /** Pieces so far; learnt pieces are appended. Symbols are indices into it. */
  pieces: string[];
  /** Texts that no merge may make: special tokens and byte pieces. */
  forbidden: ReadonlySet<string>;
  /** Longest piece in characters. */
  maxPieceCharacters: number;
  /** A pair that occurs less often is not merged. */
  minCount: number;
}

export class MergeLearner {
  readonly merges: Merge[] = [];
  readonly #options: MergeLearnerOptions;
  readonly #sequences: SymbolSequences;
  readonly #lengths: Int32Array;
  readonly #pairs = new PairTable();
  readonly #queue = new PairQueue(this.#pairs);
  readonly #pieceIds: Map<string, number>;
  readonly #pieceCharacters: number[];
  /** Pairs whose count grew during the merge at hand. */
  readonly #grown = new Set<number>();

  /** Takes `sequences` over and changes them. */
  constructor(sequences: SymbolSequences, options: MergeLearnerOptions) {
    this.#options = options;
    this.#sequences = sequences;
    this.#pieceIds = new Map(options.pieces.map((piece, id) => [piece, id]));
    this.#pieceCharacters = options.pieces.map((piece) => Array.from(piece).length);
    const { symbols, starts, counts } = sequences;
    this.#lengths = Int32Array.from(counts, (_, sequence) => starts[sequence + 1] - starts[sequence]);
    for (let sequence = 0; sequence < counts.length; sequence++) {
      for (let i = starts[sequence]; i + 1 < starts[sequence + 1]; i++) {
        this.#pairs.add(this.#pairs.intern(symbols[i], symbols[i + 1]), counts[sequence], sequence);
      }
    }
    for (let pair = 0; pair < this.#pairs.size; pair++) this.#queue.push(pair);
  }

  /** Learns one merge; false when no pair is left that may be merged. */
  learnNext(): boolean {
    const { pieces } = this.#options;
    for (;;) {
      const pair = this.#nextPair();
      if (pair < 0) return false;
      const left = this.#pairs.leftOf(pair);
      const right = this.#pairs.rightOf(pair);
      const text = pieces[left] + pieces[right];
      const numCharacters = this.#pieceCharacters[left] + this.#pieceCharacters[right];
      if (numCharacters > this.#options.maxPieceCharacters || this.#options.forbidden.has(text)) continue;
      // Two merges can make the same text ("a" + "bc", "ab" + "c"): then they make the same piece.
      let merged = this.#pieceIds.get(text);
      if (merged === undefined) {
        merged = pieces.length;
        pieces.push(text);
        this.#pieceIds.set(text, merged);
        this.#pieceCharacters.push(numCharacters);
      }
      this.merges.push({ left, right, merged });
      this.#merge(pair, { left, right, merged });
      return true;
    }
  }

  /** The most frequent pair, or -1. A pair that is given out does not come back unless its count grows. */
  #nextPair(): number {
    const queue = this.#queue;
    while (queue.size > 0) {
      const pushedCount = queue.topCount;
      const pair = queue.pop();
      const count = this.#pairs.countOf(pair);
      if (count < this.#options.minCount) continue;
      if (count === pushedCount) return pair;
      // A higher count was pushed when it grew; a lower one is put back where it belongs.
      if (count < pushedCount) queue.push(pair);
    }
    return -1;
  }

  #merge(pair: number, merge: Merge): void {
    this.#grown.clear();
    this.#pairs.takeOut(pair, (sequence) => this.#mergeInSequence(sequence, merge));
    for (const grownPair of this.#grown) this.#queue.push(grownPair);
  }

  #mergeInSequence(sequence: number, { left, right, merged }: Merge): void {
    const { symbols, starts, counts } = this.#sequences;
    const start = starts[sequence];
    const end = start + this.#lengths[sequence];
    const count = counts[sequence];
    let to = start;
    for (let from = start; from < end; from++) {
      if (symbols[from] !== left || from + 1 >= end || symbols[from + 1] !== right) {
        symbols[to++] = symbols[from];
        continue;
      }
      if (to > start) {
        this.#subtract(symbols[to - 1], left, count);
        this.#add(symbols[to - 1], merged, count, sequence);
      }
      if (from + 2 < end) {
        this.#subtract(right, symbols[from + 2], count);
        this.#add(merged, symbols[from + 2], count, sequence);
      }
      symbols[to++] = merged;
      from++;
    }
    this.#lengths[sequence] = to - start;
  }

  #add(left: number, right: number, count: number, sequence: number): void {
    const pair = this.#pairs.intern(left, right);
    this.#pairs.add(pair, count, sequence);
    this.#grown.add(pair);
  }

  #subtract(left: number, right: number, count: number): void {
    this.#pairs.subtract(this.#pairs.intern(left, right), count);
  }
}
