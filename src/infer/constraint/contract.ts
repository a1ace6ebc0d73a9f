/** What the engine knows of constrained output. Types only. */
import type { OutputConstraint } from "../engine/contract.ts";

/** Where one request stands in what it may say. */
export interface ConstraintState {
  /** Tokens that may come next, a bit each; never empty before `isComplete`. Not to be changed. */
  allowed(): Uint32Array;
  /** Takes a token that was allowed. */
  advance(token: number): void;
  /** All is said, and nothing may follow but an end token. */
  readonly isComplete: boolean;
  /** Tokens taken so far. */
  readonly numTaken: number;
}

export interface ConstraintCompiler {
  /** Throws RequestError naming what cannot be. */
  compile(constraint: OutputConstraint): {
    /** `endTokens` are allowed where the text may end. */
    start(endTokens: readonly number[]): ConstraintState;
  };
}
