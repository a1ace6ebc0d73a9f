/** What a runner computes for a sequence, and what it gives back. Types only; a runner of another kind (a fake one) has the same. */
import type { Step } from "../scheduler/scheduler.ts";
import type { SamplingOptions } from "../sampling.ts";

/** What is wanted of the rows of a prompt from which nothing is drawn. */
export type OutputKind =
  /** Each next token's log-probability, with so many most likely ones. */
  | {
      kind: "logprobs";
      numMostLikely: number;
      /** Tokens measured besides the one that follows the row of a position; in the order of positions. */
      alternatives: readonly { readonly position: number; readonly token: number }[];
    }
  /** The sum of the hidden states after the final norm. */
  | { kind: "hidden" };

export interface RunnerTask {
  readonly sampling: SamplingOptions;
  /** Not drawn before sampling.minTokens. */
  readonly endTokens: readonly number[];
  /** With each drawn token its rank and so many most likely ones; undefined: neither. */
  readonly numLogprobs: number | undefined;
  readonly outputs: OutputKind | undefined;
  /**
   * Tokens that may be drawn next, a bit each; undefined: all. Asked when a step is queued, so that whoever has it needs the tokens drawn
   * before on the host.
   */
  readonly allowedTokens: (() => Uint32Array) | undefined;
  /** Index of the adapter that the rows go through; 0: none. The one place where adapters enter a step. */
  readonly adapter: number;
}

export interface RankedToken {
  token: number;
  logprob: number;
  rank: number;
  mostLikely: readonly { token: number; logprob: number }[];
}

export interface StepResult {
  /** By draw, in the order of the pieces that draw. */
  tokens: ArrayLike<number>;
  /** Natural log of each token's probability under the model's own logits. */
  logprobs: ArrayLike<number>;
  /** By draw, for those that asked. */
  ranked: readonly (RankedToken | undefined)[];
  /** By piece, for those with outputs in this step. */
  outputs: readonly (PieceOutput | undefined)[];
}

export type PieceOutput =
  | { kind: "logprobs"; tokens: readonly RankedToken[]; alternatives: readonly RankedToken[] }
  | { kind: "hidden"; sum: Float32Array };

/** A step that is under way. */
export interface PendingStep {
  /** Whether `wait` returns at once. */
  readonly isReady: boolean;
  wait(): StepResult;
}

/** Computes steps in the order they are queued. */
export interface StepRunner extends Disposable {
  /** Queues a step; tokens that its draws follow may still be in flight. Throws DeviceError. */
  execute(step: Step<RunnerTask>): PendingStep;
  dispose(): void;
}

/** Whether the draw depends on tokens that the host must know first. */
export function needsHost({ sampling, allowedTokens }: RunnerTask): boolean {
  return (
    allowedTokens !== undefined ||
    sampling.repetitionPenalty !== 1 ||
    sampling.presencePenalty !== 0 ||
    sampling.frequencyPenalty !== 0
  );
}
