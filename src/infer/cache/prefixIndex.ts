/**
 * Which block holds which stretch of tokens: a chain of block-sized stretches, each known by the one before it. A hash finds candidates, and
 * the tokens themselves decide, so that no collision can show one request what another one said. A chain may end in a stretch shorter than
 * a block, which only its beginning can be found by. Pure numbers.
 */

/** One block of some chain: a full one, or the last one of a context. */
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
  /** By what they follow and their first token: a root has as many children as there are prompts. */
  readonly #children = new Map<number, PrefixNode[]>();
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

  /** The block after the chain `parent` that shares most of tokens[begin .. end] from the first on, and how many; undefined for none. */
  findBeginning(
    parent: number,
    tokens: readonly number[],
    { begin, end }: { begin: number; end: number },
  ): { node: PrefixNode; numTokens: number } | undefined {
    let best: { node: PrefixNode; numTokens: number } | undefined;
    for (const node of this.#children.get(hashOf(parent, tokens, begin, begin + 1)) ?? []) {
      if (node.parent !== parent) continue;
      const limit = Math.min(end - begin, node.tokens.length);
      let numTokens = 0;
      while (numTokens < limit && node.tokens[numTokens] === tokens[begin + numTokens]) numTokens++;
      if (numTokens > (best?.numTokens ?? 0)) best = { node, numTokens };
      if (numTokens === end - begin) break;
    }
    return best;
  }

  #isSame(node: PrefixNode, tokens: readonly number[], begin: number): boolean {
    for (let i = 0; i < this.#blockSize; i++) if (node.tokens[i] !== tokens[begin + i]) return false;
    return true;
  }

  /** Adds tokens[begin .. end], at most a block, that `find` does not know. */
  add(
    parent: number,
    tokens: readonly number[],
    { begin, end, block }: { begin: number; end: number; block: number },
  ): PrefixNode {
    const hash = hashOf(parent, tokens, begin, end);
    const node = { id: this.#nextId++, parent, tokens: tokens.slice(begin, end), block, hash };
    if (node.tokens.length === this.#blockSize) addTo(this.#nodes, hash, node);
    addTo(this.#children, hashOf(parent, tokens, begin, begin + 1), node);
    return node;
  }

  remove(node: PrefixNode): void {
    if (node.tokens.length === this.#blockSize) removeFrom(this.#nodes, node.hash, node);
    removeFrom(this.#children, hashOf(node.parent, node.tokens, 0, 1), node);
  }

  get size(): number {
    let total = 0;
    for (const bucket of this.#children.values()) total += bucket.length;
    return total;
  }
}

function addTo(lists: Map<number, PrefixNode[]>, key: number, node: PrefixNode): void {
  const list = lists.get(key);
  if (list === undefined) lists.set(key, [node]);
  else list.push(node);
}

function removeFrom(lists: Map<number, PrefixNode[]>, key: number, node: PrefixNode): void {
  const list = lists.get(key) ?? [];
  if (list.length > 1) list.splice(list.indexOf(node), 1);
  else lists.delete(key);
}
