/**
 * A model of arithmetic for tests and measurements of what surrounds a model: what a slot of its cache holds follows from the slot
 * before it in the context and the token, and the next token from the last slot, so that a wrong block, a stale one, or a row computed
 * out of turn changes every token after it. It takes no time.
 */
import { invariant } from "../../base/index.ts";
import type { Step, StepPiece } from "../scheduler/scheduler.ts";
import type { PendingStep, RunnerTask, StepResult, StepRunner } from "../runner/task.ts";

const start = 0x9e3779b9;

function mix(state: number, token: number): number {
  const mixed = Math.imul(state ^ (token + 1), 0x85ebca6b);
  return (mixed ^ (mixed >>> 13)) | 0;
}

function tokenOf(state: number, vocabSize: number): number {
  return (Math.imul(state, 0xc2b2ae35) >>> 16) % vocabSize;
}

/** What the model says after `prompt`, computed from the definition alone. */
export function fakeContinuation(prompt: readonly number[], count: number, vocabSize: number): number[] {
  let state = start;
  for (const token of prompt) state = mix(state, token);
  return Array.from({ length: count }, () => {
    const token = tokenOf(state, vocabSize);
    state = mix(state, token);
    return token;
  });
}

export class FakeRunner implements StepRunner {
  readonly #slots: Int32Array;
  readonly #blockSize: number;
  readonly #vocabSize: number;
  readonly #isReady: () => boolean;
  #drawn: readonly number[] = [];

  constructor(options: {
    numBlocks: number;
    blockSize: number;
    vocabSize: number;
    /** Whether a step is done when it is asked; without, never, as on a slow device. */
    isReady?: () => boolean;
  }) {
    this.#slots = new Int32Array(options.numBlocks * options.blockSize);
    this.#blockSize = options.blockSize;
    this.#vocabSize = options.vocabSize;
    this.#isReady = options.isReady ?? (() => false);
  }

  execute({ pieces }: Step<RunnerTask>): PendingStep {
    const tokens: number[] = [];
    const copied = new Set(pieces.flatMap(({ copies }) => copies.map(({ slot }) => slot)));
    for (const piece of pieces) {
      for (const { source, slot } of piece.copies) {
        // A device gathers all sources before it writes any.
        invariant(!copied.has(source), "a source that this step does not copy to");
        this.#slots[slot] = this.#slots[source];
      }
      const state = this.#compute(piece);
      if (piece.draws) tokens.push(tokenOf(state, this.#vocabSize));
    }
    // It copies when all rows are written.
    for (const { source, slot } of pieces.flatMap(({ copies }) => copies))
      invariant(this.#slots[source] === this.#slots[slot], "a source that the step leaves as it was");
    this.#drawn = tokens;
    const result: StepResult = { tokens, logprobs: tokens.map(() => -1), ranked: [], outputs: [] };
    const isReady = this.#isReady();
    return { isReady, wait: () => result };
  }

  #compute({ sequence, start: first, numRows, drawPlace }: StepPiece<RunnerTask>): number {
    const { tokens, blocks, numShared } = sequence;
    const slotOf = (position: number): number =>
      blocks.at(Math.floor(position / this.#blockSize)) * this.#blockSize + (position % this.#blockSize);
    let state = first === 0 ? start : this.#slots[slotOf(first - 1)];
    for (let position = first; position < first + numRows; position++) {
      const isKnown = position < tokens.length;
      invariant(isKnown || drawPlace >= 0, "a token that is known or was just drawn");
      state = mix(state, isKnown ? tokens[position] : this.#drawn[drawPlace]);
      if (position >= numShared) this.#slots[slotOf(position)] = state;
      else invariant(this.#slots[slotOf(position)] === state, "a shared slot holds what is computed for it");
    }
    return state;
  }

  dispose(): void {}

  [Symbol.dispose](): void {}
}
