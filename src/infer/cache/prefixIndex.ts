/**
 * Which block holds which stretch of tokens: a chain of block-sized stretches, each known by the one before it. A hash finds candidates, and
 * the tokens themselves decide, so that no collision can show one request what another one said. Pure numbers.
 */

/** One full block of some chain. */
export interface PrefixNode {
  /** Of this stretch after everything before it: unique, never used again. */
  readonly id: number;
  readonly parent: number;
  readonly tokens: readonly number[];
  readonly block: number;
  readonly hash: number;
}

/** FNV-1a over the parent and the tokens, a word at a time. */
function hashOf(parent: number, tokens: readonly number[], begin: number, end: number): number {
  let hash = Math.imul(parent ^ 0x811c9dc5, 0x01000193);
  for (let i = begin; i < end; i++) hash = Math.imul(hash ^ tokens[i], 0x01000193) ^ (hash >>> 15);
  return hash;
}

export class PrefixIndex {
  readonly #blockSize: number;
  readonly #roots = new Map<string, number>();
  readonly #nodes = new Map<number, PrefixNode[]>();
  #nextId = 1;

  constructor(blockSize: number) {
    this.#blockSize = blockSize;
  }

  /** Where the chains of `salt` begin: what differs in more than tokens (the adapter) shares nothing. */
  root(salt: string): number {
    const existing = this.#roots.get(salt);
    if (existing !== undefined) return existing;
    const id = this.#nextId++;
    this.#roots.set(salt, id);
    return id;
  }

  /** No chain that began under `salt` is found any more. */
  forget(salt: string): void {
    this.#roots.delete(salt);
  }

  /** The block that holds tokens[begin .. begin + blockSize] after the chain `parent`. */
  find(parent: number, tokens: readonly number[], begin: number): PrefixNode | undefined {
    const candidates = this.#nodes.get(hashOf(parent, tokens, begin, begin + this.#blockSize));
    return candidates?.find((node) => node.parent === parent && this.#isSame(node, tokens, begin));
  }

  #isSame(node: PrefixNode, tokens: readonly number[], begin: number): boolean {
    for (let i = 0; i < this.#blockSize; i++) if (node.tokens[i] !== tokens[begin + i]) return false;
    return true;
  }

  /** Adds a stretch that `find` does not know. */
  add(
    parent: number,
    tokens: readonly number[],
    { begin, block }: { begin: number; block: number },
  ): PrefixNode {
    const end = begin + this.#blockSize;
    const hash = hashOf(parent, tokens, begin, end);
    const node = { id: this.#nextId++, parent, tokens: tokens.slice(begin, end), block, hash };
    const bucket = this.#nodes.get(hash);
    if (bucket === undefined) this.#nodes.set(hash, [node]);
    else bucket.push(node);
    return node;
  }

  remove(node: PrefixNode): void {
    const rest = this.#nodes.get(node.hash)?.filter((other) => other !== node) ?? [];
    if (rest.length === 0) this.#nodes.delete(node.hash);
    else this.#nodes.set(node.hash, rest);
  }

  get size(): number {
    let total = 0;
    for (const bucket of this.#nodes.values()) total += bucket.length;
    return total;
  }
}
