/** One sequence as the scheduler sees it: numbers only; what its tokens are for is its `task`, which the scheduler never reads. */
import { BlockTable } from "../cache/blockTable.ts";

export interface SequenceOptions<Task> {
  prompt: readonly number[];
  /** Tokens to draw at most; 0 only reads the prompt. */
  maxNewTokens: number;
  priority: number;
  /** Order of arrival; unique. */
  arrival: number;
  /** Sequences of different salts share no cached blocks. */
  salt: string;
  /**
   * Rows [begin, end) of the prompt whose results are wanted although nothing is drawn from them (log-probabilities, hidden
   * states): they are computed even where the cache has them. Not empty.
   */
  outputs?: { begin: number; end: number } | undefined;
  task: Task;
}

export type SequenceState = "waiting" | "running" | "finished";

export class Sequence<Task> {
  readonly task: Task;
  readonly priority: number;
  readonly arrival: number;
  readonly salt: string;
  readonly numPromptTokens: number;
  readonly maxNewTokens: number;
  readonly blocks = new BlockTable();
  /** Prompt and drawn tokens that the host knows. */
  readonly tokens: number[];
  state: SequenceState = "waiting";
  /** Draws that are queued and whose tokens the host does not know yet. */
  numInFlight = 0;
  /** Tokens whose keys and values are in the cache, or queued to be. */
  numComputed = 0;
  /** Tokens in blocks that were found in the cache: nobody writes there. */
  numShared = 0;
  /** Tokens found in the cache at the first admission; undefined before. */
  numCachedAtStart: number | undefined;
  /** Full blocks that can be found, and the chain they end. */
  numPublished = 0;
  chain = 0;
  /** Where the draw of the step before stands among that step's draws. */
  drawPlace = -1;
  outputBegin: number;
  readonly outputEnd: number;

  constructor(options: SequenceOptions<Task>) {
    this.task = options.task;
    this.priority = options.priority;
    this.arrival = options.arrival;
    this.salt = options.salt;
    this.tokens = [...options.prompt];
    this.numPromptTokens = options.prompt.length;
    this.maxNewTokens = options.maxNewTokens;
    this.outputBegin = options.outputs?.begin ?? options.prompt.length;
    this.outputEnd = options.outputs?.end ?? options.prompt.length;
  }

  /** Tokens drawn, those in flight included. */
  get numDrawn(): number {
    return this.tokens.length - this.numPromptTokens + this.numInFlight;
  }

  /** All tokens, those in flight included. */
  get numTokens(): number {
    return this.tokens.length + this.numInFlight;
  }

  /** Rows that are wanted now: without draws only those up to the last output. */
  get numRows(): number {
    return this.maxNewTokens === 0 ? this.outputEnd : this.numTokens;
  }

  /** Rows that a step may still compute: none when the last draw is under way. */
  get numToCompute(): number {
    if (this.maxNewTokens > 0 && this.numDrawn >= this.maxNewTokens) return 0;
    return this.numRows - this.numComputed;
  }

  /** The most rows that it may ever have in the cache: the last token drawn needs none. */
  get mostRows(): number {
    return this.maxNewTokens === 0 ? this.outputEnd : this.numPromptTokens + this.maxNewTokens - 1;
  }

  /** Tokens that may come from the cache: the last one must be computed, and those whose results are wanted. */
  get numCacheable(): number {
    const last = this.numRows - 1;
    return this.outputBegin < this.outputEnd ? Math.min(last, this.outputBegin) : last;
  }

  /** Higher priority first, then order of arrival. */
  goesBefore(other: Sequence<Task>): boolean {
    return this.priority === other.priority ? this.arrival < other.arrival : this.priority > other.priority;
  }
}

/** Adds to a list in the order of `goesBefore`. */
export function insertInOrder<Task>(list: Sequence<Task>[], sequence: Sequence<Task>): void {
  let low = 0;
  let high = list.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list[middle].goesBefore(sequence)) low = middle + 1;
    else high = middle;
  }
  list.splice(low, 0, sequence);
}
