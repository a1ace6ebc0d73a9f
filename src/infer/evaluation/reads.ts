/**
 * Which prompts an engine reads so that each likelihood is known. Continuations of one context are a tree: a row tells all tokens that may
 * follow it at once, so each distinct beginning is scored once, by the first continuation that has it, and a continuation that leaves
 * the others with its last token reads nothing of its own.
 */
import type { ScoredTokens } from "./pairs.ts";

/** One prompt. */
export interface Read {
  readonly tokens: Int32Array;
  /** The first token whose score it gives; those after it follow. */
  readonly from: number;
  /** Where the scores of these tokens go. */
  readonly places: readonly number[];
  /** Other tokens whose scores it gives, in the order of where they might stand. */
  readonly alternatives: readonly { at: number; token: number; place: number }[];
}

export interface ReadPlan {
  /** In an order that lets common beginnings follow each other. */
  readonly reads: readonly Read[];
  /** By sequence: the places of its tokens' scores, in order. */
  readonly places: readonly (readonly number[])[];
  readonly numPlaces: number;
}

/** A continuation, as the next one of its context sees it. */
interface Branch {
  readonly tokens: Int32Array;
  readonly places: readonly number[];
  /** Which read has each row, from the one before the first scored token on. */
  readonly owners: readonly number[];
}

interface GrowingRead extends Read {
  readonly alternatives: { at: number; token: number; place: number }[];
}

export function planReads(sequences: readonly ScoredTokens[]): ReadPlan {
  const reads: GrowingRead[] = [];
  const places: (readonly number[])[] = sequences.map(() => []);
  let numPlaces = 0;
  const add = ({ tokens, from }: ScoredTokens, before: Branch | undefined): Branch => {
    let next = before === undefined ? from : commonLength(before.tokens, tokens);
    const own = before?.places.slice(0, next - from) ?? [];
    const owners = before?.owners.slice(0, next - from) ?? [];
    // Undefined where the one before ends: nobody has read its last token yet.
    const owner = before?.owners.at(next - from);
    if (owner !== undefined && next < tokens.length) {
      reads[owner].alternatives.push({ at: next, token: tokens[next], place: numPlaces });
      own.push(numPlaces++);
      owners.push(owner);
      next++;
    }
    if (next < tokens.length) {
      const rest = Array.from({ length: tokens.length - next }, () => numPlaces++);
      for (const place of rest) {
        own.push(place);
        owners.push(reads.length);
      }
      reads.push({ tokens, from: next, places: rest, alternatives: [] });
    }
    return { tokens, places: own, owners };
  };
  for (const group of byContext(sequences)) {
    let before: Branch | undefined;
    for (const index of group) {
      before = add(sequences[index], before);
      places[index] = before.places;
    }
  }
  for (const { alternatives } of reads) alternatives.sort((a, b) => a.at - b.at);
  return { reads, places, numPlaces };
}

/** Which sequences are known when reads have ended. */
export class ReadProgress {
  readonly #sequences: readonly number[][];
  readonly #numMissing: number[];

  constructor(reads: readonly Read[], places: readonly (readonly number[])[]) {
    const readOf = new Map<number, number>();
    for (const [index, read] of reads.entries()) {
      for (const place of read.places) readOf.set(place, index);
      for (const { place } of read.alternatives) readOf.set(place, index);
    }
    this.#sequences = reads.map(() => []);
    this.#numMissing = places.map((list, sequence) => {
      const wanted = new Set(list.flatMap((place) => readOf.get(place) ?? []));
      for (const read of wanted) this.#sequences[read].push(sequence);
      return wanted.size;
    });
  }

  /** Ends a read, and gives the sequences that waited for it alone. */
  finish(read: number): number[] {
    return this.#sequences[read].filter((sequence) => --this.#numMissing[sequence] === 0);
  }
}

/** Places of sequences that differ in their scored tokens alone, in the order of their tokens. */
function byContext(sequences: readonly ScoredTokens[]): number[][] {
  const groups: number[][] = [];
  for (const index of inOrderOfTokens(sequences)) {
    const group = groups.at(-1);
    if (group !== undefined && hasSameContext(sequences[group[0]], sequences[index])) group.push(index);
    else groups.push([index]);
  }
  return groups;
}

function hasSameContext(a: ScoredTokens, b: ScoredTokens): boolean {
  return a.from === b.from && commonLength(a.tokens, b.tokens) >= a.from;
}

function inOrderOfTokens(sequences: readonly ScoredTokens[]): number[] {
  return Array.from(sequences.keys()).sort(
    (a, b) => compareTokens(sequences[a].tokens, sequences[b].tokens) || a - b,
  );
}

function compareTokens(a: Int32Array, b: Int32Array): number {
  const common = commonLength(a, b);
  return common === a.length || common === b.length ? a.length - b.length : a[common] - b[common];
}

function commonLength(a: Int32Array, b: Int32Array): number {
  const length = Math.min(a.length, b.length);
  let common = 0;
  while (common < length && a[common] === b[common]) common++;
  return common;
}
