/**
 * A trie from byte strings to ids in one hash table of (node, byte) pairs. Knows nothing of what the ids stand for.
 * Invariants: node 0 is the root; a string has at most one id; nothing can be added after the constructor.
 */
import { TokenizerError } from "../../base/index.ts";

/** Nodes and bytes must fit together in 32 bits. */
const maxNodes = 1 << 24;

export class PieceTrie {
  /** Of each node the id of the string that ends there, or -1. */
  readonly #ids: Int32Array;
  /** (node << 8 | byte) + 1 by slot, 0 is free (no path leads through node 2^24 - 1), and the node it leads to. */
  readonly #keys: Uint32Array;
  readonly #nodes: Int32Array;
  readonly #shift: number;
  readonly #mask: number;

  constructor(entries: Iterable<readonly [bytes: Uint8Array, id: number]>) {
    const list = [...entries];
    const numBytes = list.reduce((sum, [bytes]) => sum + bytes.length, 0);
    const bits = Math.max(4, Math.ceil(Math.log2(numBytes * 1.5 + 2)));
    if (numBytes >= maxNodes || bits > 30)
      throw new TokenizerError("tokenizer", `expected pieces of less than 16 MiB, got ${numBytes} bytes`);
    this.#shift = 32 - bits;
    this.#mask = (1 << bits) - 1;
    this.#keys = new Uint32Array(1 << bits);
    this.#nodes = new Int32Array(1 << bits);
    const ids = new Int32Array(numBytes + 1).fill(-1);
    let numNodes = 1;
    for (const [bytes, id] of list) {
      let node = 0;
      for (const byte of bytes) {
        const slot = this.#slotOf(node, byte);
        if (this.#keys[slot] === 0) {
          this.#keys[slot] = node * 256 + byte + 1;
          this.#nodes[slot] = numNodes++;
        }
        node = this.#nodes[slot];
      }
      ids[node] = id;
    }
    this.#ids = ids.slice(0, numNodes);
  }

  /** The node one byte further, or -1. `node` may be -1. */
  step(node: number, byte: number): number {
    if (node < 0) return -1;
    const slot = this.#slotOf(node, byte);
    return this.#keys[slot] === 0 ? -1 : this.#nodes[slot];
  }

  /** The node that `bytes[start, end)` lead to from `node`, or -1. */
  walk(node: number, bytes: Uint8Array, { start, end }: { start: number; end: number }): number {
    let at = node;
    for (let position = start; position < end && at >= 0; position++) at = this.step(at, bytes[position]);
    return at;
  }

  /** The id of the string that ends at `node`, or -1. */
  idAt(node: number): number {
    return node < 0 ? -1 : this.#ids[node];
  }

  /** The length of the longest string that begins at `position`, or 0. */
  longestMatch(bytes: Uint8Array, position: number, end: number): number {
    let longest = 0;
    let node = 0;
    for (let at = position; at < end; at++) {
      node = this.step(node, bytes[at]);
      if (node < 0) break;
      if (this.#ids[node] >= 0) longest = at + 1 - position;
    }
    return longest;
  }

  /** The slot of a pair, or the free one where it would go. */
  #slotOf(node: number, byte: number): number {
    const key = node * 256 + byte + 1;
    let slot = Math.imul(key, 0x9e3779b1) >>> this.#shift;
    while (this.#keys[slot] !== key && this.#keys[slot] !== 0) slot = (slot + 1) & this.#mask;
    return slot;
  }
}
