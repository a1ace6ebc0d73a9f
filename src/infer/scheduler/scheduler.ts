/**
 * Decides what each step computes: continuous batching over paged blocks. Decoding sequences go first, one row each, then pieces
 * of prompts within the rest of the row budget, then new sequences. When blocks run out, the last in order gives its own back and starts
 * again later ("recompute"; Kwon et al., "PagedAttention", 2023). Pure numbers: knows no device, no model and no text.
 *
 * Contents are published when the step that writes them is planned, not when it is done: steps run in order, and within a step a
 * layer writes all keys before it reads any, so even sequences of the same step share. Full blocks are shared as they are; the beginning of
 * one that goes on differently is copied into a block of the sequence's own, after the layer's writes.
 */
import { invariant } from "../../base/index.ts";
import { BlockPool } from "../cache/blockPool.ts";
import type { PrefixNode } from "../cache/prefixIndex.ts";
import { insertInOrder } from "./sequence.ts";
import type { Sequence } from "./sequence.ts";

export interface SchedulerOptions {
  numBlocks: number;
  blockSize: number;
  /** Rows of a step. */
  maxStepRows: number;
  /** Sequences that draw tokens and run at once; at most maxStepRows. What is only read counts by its rows alone. */
  maxSequences: number;
  /** Looks for prompts in the cache. Default true. */
  reusesPrefixes?: boolean;
}

/** What one slot of the cache holds goes to another one, in each layer after the step's own keys and values are written. */
export interface SlotCopy {
  readonly source: number;
  readonly slot: number;
}

/** Rows of one sequence in a step: tokens start .. start + numRows of it. */
export interface StepPiece<Task> {
  readonly sequence: Sequence<Task>;
  readonly start: number;
  readonly numRows: number;
  /** Whether a token is drawn from the last row. */
  readonly draws: boolean;
  /** Place of the last token in the draws of the step before, when the host does not know it yet; else -1. */
  readonly drawPlace: number;
  /** Positions within the rows whose results are wanted: [begin, end), empty when equal. */
  readonly outputBegin: number;
  readonly outputEnd: number;
  /** Draws of the sequence before this one. */
  readonly numDrawn: number;
  /** What the sequence's rows find in its own blocks: no source is another one's slot in the same step. */
  readonly copies: readonly SlotCopy[];
}

export interface Step<Task> {
  /** Decoding sequences first. */
  readonly pieces: readonly StepPiece<Task>[];
  readonly numRows: number;
  /** Whether every piece is one row that draws, and none reads what another one writes in the same step. */
  readonly isDecode: boolean;
}

/** What a sequence finds in the cache. */
interface FoundPrefix {
  /** Full blocks, to share. */
  readonly nodes: readonly PrefixNode[];
  /** The beginning of the next block, to copy. */
  readonly beginning: { readonly node: PrefixNode; readonly numTokens: number } | undefined;
}

/** Copying fewer tokens than this share of a block is not worth the launches: they are read again. */
const leastCopiedShare = 1 / 4;

export class Scheduler<Task> {
  readonly pool: BlockPool;
  readonly options: SchedulerOptions;
  readonly #running: Sequence<Task>[] = [];
  readonly #waiting: Sequence<Task>[] = [];
  /** Blocks kept free at an admission, so that running sequences can grow for a while. */
  readonly #reserve: number;
  /** Where what this step copies came from, by slot; and the blocks that must keep it until the step is planned. */
  readonly #sources = new Map<number, number>();
  readonly #kept: number[] = [];
  numPreemptions = 0;

  constructor(options: SchedulerOptions) {
    invariant(options.maxSequences <= options.maxStepRows, "a row for every running sequence");
    this.options = options;
    this.pool = new BlockPool(options);
    this.#reserve = Math.ceil(options.numBlocks / 100);
  }

  get numRunning(): number {
    return this.#running.length;
  }

  get numWaiting(): number {
    return this.#waiting.length;
  }

  /** Whether the cache can hold a sequence of `numTokens` rows at all. */
  fits(numTokens: number): boolean {
    return this.pool.blocksFor(numTokens) <= this.pool.numBlocks;
  }

  /** Takes a sequence in; its longest extent must fit (`fits`). */
  add(sequence: Sequence<Task>): void {
    invariant(sequence.numPromptTokens > 0, "a prompt of at least one token");
    invariant(this.fits(sequence.mostRows), "a sequence that fits the cache");
    insertInOrder(this.#waiting, sequence);
  }

  /** Ends a sequence in whatever state it is; its blocks are free at once. */
  finish(sequence: Sequence<Task>): void {
    if (sequence.state === "finished") return;
    remove(sequence.state === "running" ? this.#running : this.#waiting, sequence);
    sequence.state = "finished";
    this.#release(sequence);
  }

  /** Tells the token of the oldest draw in flight. What ended meanwhile takes no more. */
  accept(sequence: Sequence<Task>, token: number): void {
    sequence.numInFlight--;
    if (sequence.state === "finished") return;
    sequence.tokens.push(token);
    if (sequence.state === "running") this.#publish(sequence);
  }

  /** The next step, or undefined when nothing can be computed now: no work, or all of it waits for draws in flight. */
  plan(): Step<Task> | undefined {
    const pieces: StepPiece<Task>[] = [];
    let numRows = 0;
    let numDraws = 0;
    const take = (sequence: Sequence<Task>, count: number, copies: readonly SlotCopy[] = []): void => {
      const piece = this.#piece(sequence, { count, place: numDraws, copies });
      pieces.push(piece);
      numRows += count;
      numDraws += Number(piece.draws);
    };
    const numPreemptions = this.numPreemptions;
    // A copy: preemption changes the list. Who is preempted has nothing to compute until it is admitted again.
    for (const sequence of this.#running.slice()) {
      if (sequence.state !== "running" || sequence.numToCompute !== 1) continue;
      if (this.#makeRoom(sequence)) take(sequence, 1);
    }
    const { maxStepRows } = this.options;
    const planned = new Set(pieces.map(({ sequence }) => sequence));
    for (const sequence of this.#running) {
      if (planned.has(sequence)) continue;
      const count = Math.min(sequence.numToCompute, maxStepRows - numRows);
      if (count > 0) take(sequence, count);
    }
    // Of those that run already, what they share was written before.
    let mayReadOthers = false;
    const admit: typeof take = (sequence, count, copies) => {
      mayReadOthers ||= sequence.numShared > 0;
      take(sequence, count, copies);
    };
    if (this.numPreemptions === numPreemptions) this.#admit(() => maxStepRows - numRows, admit);
    this.#sources.clear();
    for (const block of this.#kept.splice(0)) this.pool.give(block);
    if (pieces.length === 0) return undefined;
    const isDecode = !mayReadOthers && pieces.every(({ numRows: count, draws }) => count === 1 && draws);
    return { pieces, numRows, isDecode };
  }

  #admit(
    rowsLeft: () => number,
    take: (sequence: Sequence<Task>, count: number, copies: readonly SlotCopy[]) => void,
  ): void {
    let numDrawing = this.#running.filter(draws).length;
    for (const sequence of this.#waiting.slice()) {
      if (rowsLeft() <= 0 || (draws(sequence) && numDrawing >= this.options.maxSequences)) return;
      // Preempted with draws in flight: its tokens are not all known yet.
      if (sequence.numInFlight > 0) continue;
      const nodes = this.options.reusesPrefixes === false ? [] : this.#findPrefix(sequence);
      // Somebody is just reading the same prompt: sharing beats reading it twice.
      if (this.#isBeingRead(sequence, nodes)) continue;
      const found = { nodes, beginning: this.#findBeginning(sequence, nodes) };
      // What is copied from needs a block of its own meanwhile.
      const fitting = [found, { nodes, beginning: undefined }].find((prefix) =>
        this.#hasRoomFor(sequence, prefix),
      );
      if (fitting === undefined) return;
      const copies = this.#start(sequence, fitting);
      numDrawing += Number(draws(sequence));
      take(sequence, Math.min(sequence.numToCompute, rowsLeft()), copies);
    }
  }

  /** The longest cached chain of full blocks that the sequence begins with. */
  #findPrefix(sequence: Sequence<Task>): PrefixNode[] {
    const { blockSize, prefixes } = this.pool;
    const nodes: PrefixNode[] = [];
    let chain = prefixes.root(sequence.salt);
    // One block beyond what may be taken from the cache helps too: its rows are read without being written.
    const { numCacheable } = sequence;
    for (let begin = 0; begin < numCacheable && begin + blockSize <= sequence.numRows; begin += blockSize) {
      const node = prefixes.find(chain, sequence.tokens, begin);
      if (node === undefined) break;
      nodes.push(node);
      chain = node.id;
    }
    return nodes;
  }

  /** What is known of the block after those that were found. */
  #findBeginning(sequence: Sequence<Task>, nodes: readonly PrefixNode[]): FoundPrefix["beginning"] {
    if (this.options.reusesPrefixes === false) return undefined;
    const { blockSize, prefixes } = this.pool;
    const begin = nodes.length * blockSize;
    const end = Math.min(sequence.numCacheable, begin + blockSize);
    const leastTokens = leastCopiedShare * blockSize;
    if (end - begin < leastTokens) return undefined;
    const chain = nodes.at(-1)?.id ?? prefixes.root(sequence.salt);
    const found = prefixes.findBeginning(chain, sequence.tokens, { begin, end });
    return found !== undefined && found.numTokens >= leastTokens ? found : undefined;
  }

  #isBeingRead(sequence: Sequence<Task>, nodes: readonly PrefixNode[]): boolean {
    if (this.options.reusesPrefixes === false) return false;
    const { blockSize } = this.pool;
    const begin = nodes.length * blockSize;
    if (begin + blockSize > sequence.numCacheable) return false;
    const chain = nodes.at(-1)?.id ?? this.pool.prefixes.root(sequence.salt);
    return this.#running.some((other) => {
      if (other.chain !== chain || other.numPublished !== nodes.length || other.numToCompute <= 1)
        return false;
      if (begin + blockSize > other.tokens.length) return false;
      for (let i = begin; i < begin + blockSize; i++)
        if (other.tokens[i] !== sequence.tokens[i]) return false;
      return true;
    });
  }

  #hasRoomFor(sequence: Sequence<Task>, { nodes, beginning }: FoundPrefix): boolean {
    const { pool } = this;
    const wanted = beginning === undefined ? nodes : [...nodes, beginning.node];
    const numIdle = wanted.filter(({ block }) => pool.isIdle(block)).length;
    const numNew = pool.blocksFor(sequence.numRows) - nodes.length;
    const reserve = this.#running.length === 0 ? 0 : this.#reserve;
    return pool.numFree - numIdle >= numNew + reserve;
  }

  #start(sequence: Sequence<Task>, { nodes, beginning }: FoundPrefix): SlotCopy[] {
    const { pool } = this;
    if (beginning !== undefined) {
      pool.share(beginning.node.block);
      this.#kept.push(beginning.node.block);
    }
    for (const { block } of nodes) {
      pool.share(block);
      sequence.blocks.push(block);
    }
    const numBlocks = pool.blocksFor(sequence.numRows);
    while (sequence.blocks.length < numBlocks) sequence.blocks.push(pool.take());
    sequence.numShared = nodes.length * pool.blockSize;
    sequence.numComputed = Math.min(sequence.numShared, sequence.numCacheable) + (beginning?.numTokens ?? 0);
    sequence.numCachedAtStart ??= sequence.numComputed;
    sequence.numPublished = nodes.length;
    sequence.chain = nodes.at(-1)?.id ?? pool.prefixes.root(sequence.salt);
    sequence.state = "running";
    remove(this.#waiting, sequence);
    insertInOrder(this.#running, sequence);
    if (beginning === undefined) return [];
    return this.#copies(beginning, sequence.blocks.at(nodes.length));
  }

  #copies(
    { node, numTokens }: { readonly node: PrefixNode; readonly numTokens: number },
    block: number,
  ): SlotCopy[] {
    const { blockSize } = this.pool;
    return Array.from({ length: numTokens }, (_, offset) => {
      const slot = block * blockSize + offset;
      const place = node.block * blockSize + offset;
      const source = this.#sources.get(place) ?? place;
      this.#sources.set(slot, source);
      return { source, slot };
    });
  }

  #piece(
    sequence: Sequence<Task>,
    { count, place, copies }: { count: number; place: number; copies: readonly SlotCopy[] },
  ): StepPiece<Task> {
    const start = sequence.numComputed;
    const end = start + count;
    const draws = sequence.maxNewTokens > 0 && end === sequence.numTokens;
    const piece = {
      sequence,
      start,
      numRows: count,
      draws,
      drawPlace: end > sequence.tokens.length ? sequence.drawPlace : -1,
      outputBegin: Math.min(Math.max(sequence.outputBegin, start), end),
      outputEnd: Math.min(Math.max(sequence.outputEnd, start), end),
      numDrawn: sequence.numDrawn,
      copies,
    };
    sequence.numComputed = end;
    sequence.outputBegin = Math.max(sequence.outputBegin, Math.min(end, sequence.outputEnd));
    if (draws) {
      sequence.numInFlight++;
      sequence.drawPlace = place;
    }
    this.#publish(sequence);
    return piece;
  }

  /** Makes blocks findable whose tokens are known and whose contents are queued: full ones, and the last one of what is only read. */
  #publish(sequence: Sequence<Task>): void {
    const { blockSize } = this.pool;
    const numKnown = Math.min(sequence.numComputed, sequence.tokens.length);
    while ((sequence.numPublished + 1) * blockSize <= numKnown) {
      const begin = sequence.numPublished * blockSize;
      const block = sequence.blocks.at(sequence.numPublished);
      sequence.chain = this.pool.publish(sequence.chain, sequence.tokens, { begin, block });
      sequence.numPublished++;
    }
    const begin = sequence.numPublished * blockSize;
    if (sequence.maxNewTokens > 0 || sequence.numToCompute > 0 || numKnown <= begin) return;
    const block = sequence.blocks.at(sequence.numPublished);
    this.pool.publishEnd(sequence.chain, sequence.tokens, { begin, end: numKnown, block });
  }

  /** A block for the next token, taken from the last in order if it must be. False when that was the sequence itself. */
  #makeRoom(sequence: Sequence<Task>): boolean {
    if (sequence.numComputed < sequence.blocks.length * this.pool.blockSize) return true;
    while (this.pool.numFree === 0) {
      const last = this.#running.at(-1);
      invariant(last !== undefined, "a running sequence");
      this.#preempt(last);
      if (last === sequence) return false;
    }
    sequence.blocks.push(this.pool.take());
    return true;
  }

  #preempt(sequence: Sequence<Task>): void {
    this.numPreemptions++;
    remove(this.#running, sequence);
    sequence.state = "waiting";
    this.#release(sequence);
    insertInOrder(this.#waiting, sequence);
  }

  /** Gives all blocks back, the last first: the beginning of a chain is what others may want again. */
  #release(sequence: Sequence<Task>): void {
    for (let block = sequence.blocks.pop(); block !== undefined; block = sequence.blocks.pop())
      this.pool.give(block);
    sequence.numComputed = 0;
    sequence.numShared = 0;
    sequence.numPublished = 0;
  }
}

function draws<Task>({ maxNewTokens }: Sequence<Task>): boolean {
  return maxNewTokens > 0;
}

function remove<Value>(list: Value[], value: Value): void {
  const index = list.indexOf(value);
  invariant(index >= 0, "a listed sequence");
  list.splice(index, 1);
}
