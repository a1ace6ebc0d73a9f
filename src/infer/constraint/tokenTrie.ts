/** The bytes of all tokens as a tree in the order of a walk, so that finding those an automaton lets through is one pass over arrays. */
import type { Tokenizer } from "../../text/index.ts";
import { dead } from "./automaton.ts";
import type { Automaton } from "./automaton.ts";

export class TokenTrie {
  readonly #numWords: number;
  /** By node, in walking order. */
  readonly #bytes: Uint8Array;
  readonly #depths: Uint16Array;
  /** Where the walk goes on when nothing below the node fits. */
  readonly #skips: Int32Array;
  /** Tokens that end at the node: firstTokens[node] .. firstTokens[node + 1] of `tokens`. */
  readonly #firstTokens: Int32Array;
  readonly #tokens: Int32Array;
  readonly #byteStrings: readonly (Uint8Array | undefined)[];
  readonly #states: Int32Array;

  /** Tokens without bytes of their own (special ones) are left out. */
  constructor(tokenizer: Tokenizer, numTokens: number) {
    this.#numWords = Math.ceil(numTokens / 32);
    const marks = new Set(tokenizer.specialTokens.values());
    this.#byteStrings = Array.from({ length: numTokens }, (_, token) => {
      if (marks.has(token)) return undefined;
      const bytes = tokenizer.decodeBytes([token], { startsText: false });
      return bytes.length === 0 ? undefined : bytes;
    });
    const strings = this.#byteStrings;
    const sorted = Int32Array.from(
      strings.flatMap((bytes, token) => (bytes === undefined ? [] : [token])),
    ).sort((a, b) => compareBytes(strings[a], strings[b]));
    let numBytes = 0;
    for (const token of sorted) numBytes += strings[token]?.length ?? 0;
    const bytes = new Uint8Array(numBytes);
    const depths = new Uint16Array(numBytes);
    const skips = new Int32Array(numBytes);
    const firstTokens = new Int32Array(numBytes + 1);
    const path: number[] = [];
    let numNodes = 0;
    let previous = new Uint8Array(0);
    const leave = (depth: number): void => {
      while (path.length > depth) skips[path.pop() ?? 0] = numNodes;
    };
    for (const [place, token] of sorted.entries()) {
      const text = strings[token] ?? previous;
      let shared = 0;
      while (shared < previous.length && shared < text.length && previous[shared] === text[shared]) shared++;
      leave(shared);
      for (let depth = shared; depth < text.length; depth++) {
        bytes[numNodes] = text[depth];
        depths[numNodes] = depth;
        firstTokens[numNodes] = place;
        path.push(numNodes++);
      }
      previous = Uint8Array.from(text);
    }
    leave(0);
    firstTokens[numNodes] = sorted.length;
    this.#bytes = bytes.slice(0, numNodes);
    this.#depths = depths.slice(0, numNodes);
    this.#skips = skips.slice(0, numNodes);
    this.#firstTokens = firstTokens.slice(0, numNodes + 1);
    this.#tokens = sorted;
    this.#states = new Int32Array(2 + depths.reduce((most, depth) => Math.max(most, depth), 0));
  }

  get numNodes(): number {
    return this.#bytes.length;
  }

  bytesOf(token: number): Uint8Array | undefined {
    return this.#byteStrings[token];
  }

  /** Tokens whose bytes the automaton takes from `state`, a bit each. */
  allowed(automaton: Automaton, state: number): { mask: Uint32Array; isEmpty: boolean } {
    const mask = new Uint32Array(this.#numWords);
    const states = this.#states;
    const numNodes = this.#bytes.length;
    let isEmpty = true;
    states[0] = state;
    for (let node = 0; node < numNodes;) {
      const depth = this.#depths[node];
      const next = automaton.next(states[depth], this.#bytes[node]);
      if (next === dead) {
        node = this.#skips[node];
        continue;
      }
      states[depth + 1] = next;
      // A node's tokens end where the next node's begin, but those of its own depth's text only: others lie below.
      for (let place = this.#firstTokens[node]; place < this.#firstTokens[node + 1]; place++) {
        const token = this.#tokens[place];
        if (this.#byteStrings[token]?.length !== depth + 1) break;
        mask[token >> 5] |= 1 << (token & 31);
        isEmpty = false;
      }
      node++;
    }
    return { mask, isEmpty };
  }
}

function compareBytes(a: Uint8Array | undefined, b: Uint8Array | undefined): number {
  if (a === undefined || b === undefined) return 0;
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) if (a[i] !== b[i]) return a[i] - b[i];
  return a.length - b.length;
}
