/** One request under way: from the rows of its steps to its events. */
import type { Tokenizer } from "../../text/index.ts";
import type { ConstraintState } from "../constraint/contract.ts";
import type { PieceOutput, RankedToken, RunnerTask } from "../runner/task.ts";
import type { Sequence } from "../scheduler/sequence.ts";
import { TextStream } from "../textStream.ts";
import type { EngineEvent, EngineFinishReason, EngineRequest, TokenLogprobs } from "./contract.ts";
import { EventQueue } from "./eventQueue.ts";

export interface DrawnToken {
  token: number;
  logprob: number;
  ranked: RankedToken | undefined;
}

export class RequestState {
  readonly events = new EventQueue<EngineEvent>();
  readonly #request: EngineRequest;
  readonly #endTokens: ReadonlySet<number>;
  readonly #constraint: ConstraintState | undefined;
  readonly #stream: TextStream;
  readonly #promptLogprobs: TokenLogprobs[] = [];
  readonly #alternatives: TokenLogprobs[] = [];
  #hasToldPrompt = false;
  #numNewTokens = 0;
  #hasEnded = false;

  constructor(
    request: EngineRequest,
    {
      tokenizer,
      endTokens,
      constraint,
    }: { tokenizer: Tokenizer; endTokens: readonly number[]; constraint: ConstraintState | undefined },
  ) {
    this.#request = request;
    this.#endTokens = new Set(endTokens);
    this.#constraint = constraint;
    // What is generated goes on from the prompt's text: a space at its beginning counts.
    const marks = new Set(tokenizer.specialTokens.values());
    const startsText = request.prompt.every((token) => marks.has(token));
    this.#stream = new TextStream(tokenizer.createDecoder({ startsText }), request.sampling.stop);
  }

  get hasEnded(): boolean {
    return this.#hasEnded;
  }

  /** Takes what a step found about prompt rows; `isLast`: there is no more to come. */
  takeOutput(output: PieceOutput | undefined, isLast: boolean): void {
    if (this.#hasEnded || this.#hasToldPrompt || this.#request.promptLogprobs === undefined) return;
    if (output?.kind === "logprobs") {
      this.#promptLogprobs.push(...output.tokens);
      this.#alternatives.push(...output.alternatives);
    }
    this.#hasToldPrompt = isLast;
    if (isLast)
      this.events.push({
        type: "prompt",
        logprobs: this.#promptLogprobs,
        alternatives: this.#alternatives,
      });
  }

  /** Takes a drawn token and says how the request ended with it, if it did. */
  takeToken({ token, logprob, ranked }: DrawnToken): EngineFinishReason | undefined {
    if (this.#hasEnded) return undefined;
    this.#numNewTokens++;
    const { sampling } = this.#request;
    const isEnd = this.#endTokens.has(token);
    if (!isEnd) this.#constraint?.advance(token);
    const text = isEnd ? "" : this.#stream.push(token, this.#numNewTokens >= sampling.minTokens);
    const known = ranked ?? { token, logprob };
    this.events.push({ type: "token", text, ...known, logprob });
    if (isEnd) return "end";
    if (this.#stream.isStopped || this.#constraint?.isComplete === true) return "stop";
    return undefined;
  }

  /** The last event. */
  end(reason: EngineFinishReason, sequence: Sequence<RunnerTask>): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.events.push({
      type: "end",
      reason,
      text: this.#stream.flush(),
      numPromptTokens: sequence.numPromptTokens,
      numCachedTokens: sequence.numCachedAtStart ?? 0,
      numNewTokens: this.#numNewTokens,
    });
  }

  fail(error: unknown): void {
    this.#hasEnded = true;
    this.events.fail(error);
  }
}
