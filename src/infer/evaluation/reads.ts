/**
 * Which prompts an engine reads so that each likelihood is known: choices after one context are told apart by their first tokens, all of
 * which one row tells, so only the first choice reads that row, and a choice of one token reads nothing of its own.
 */
import type { ScoredTokens } from "./pairs.ts";

/** One prompt: its tokens from `from` on are scored. */
export interface Read {
  readonly tokens: Int32Array;
  readonly from: number;
  /** Which sequence it is; its likelihood is that of the tokens read here, after that of its first token where another read tells it. */
  readonly index: number;
  /** Other tokens at `from`, and the sequences whose first scored token each of them is. */
  readonly alternatives: ReadonlyMap<number, readonly number[]>;
}

export interface ReadPlan {
  /** In an order that lets common beginnings follow each other. */
  readonly reads: readonly Read[];
  /** By sequence: how many reads tell of it. */
  readonly numReads: readonly number[];
}

export function planReads(sequences: readonly ScoredTokens[]): ReadPlan {
  const reads: Read[] = [];
  const numReads = sequences.map(() => 0);
  for (const group of byContext(sequences)) {
    const alternatives = new Map<number, number[]>();
    const [first, ...others] = group;
    const { tokens, from } = sequences[first];
    reads.push({ tokens, from, index: first, alternatives });
    numReads[first]++;
    for (const index of others) {
      const other = sequences[index];
      const next = other.tokens[from];
      const same = alternatives.get(next);
      if (same === undefined) alternatives.set(next, [index]);
      else same.push(index);
      numReads[index]++;
      if (other.tokens.length === from + 1) continue;
      reads.push({ tokens: other.tokens, from: from + 1, index, alternatives: new Map() });
      numReads[index]++;
    }
  }
  return { reads, numReads };
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
  if (a.from !== b.from || a.tokens.length === a.from || b.tokens.length === b.from) return false;
  for (let i = 0; i < a.from; i++) if (a.tokens[i] !== b.tokens[i]) return false;
  return true;
}

function inOrderOfTokens(sequences: readonly ScoredTokens[]): number[] {
  return Array.from(sequences.keys()).sort(
    (a, b) => compareTokens(sequences[a].tokens, sequences[b].tokens) || a - b,
  );
}

function compareTokens(a: Int32Array, b: Int32Array): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) if (a[i] !== b[i]) return a[i] - b[i];
  return a.length - b.length;
}
