/**
 * The engine of one model in this thread: requests into sequences, steps planned and run one after another, results into events.
 *
 * The next step is planned and queued before the last one's tokens are read, wherever no choice hangs on them; a token drawn for a
 * sequence that turns out to have ended is thrown away. Between steps other work of the thread runs.
 */
import { EngineFailedError, messageOf, NautilusError, RequestError } from "../../base/index.ts";
import type { Tokenizer } from "../../text/index.ts";
import type { ConstraintCompiler } from "../constraint/contract.ts";
import { needsHost } from "../runner/task.ts";
import type {
  OutputKind,
  PendingStep,
  PieceOutput,
  RunnerTask,
  StepResult,
  StepRunner,
} from "../runner/task.ts";
import { parseSampling } from "../sampling.ts";
import { Scheduler } from "../scheduler/scheduler.ts";
import type { SchedulerOptions, Step } from "../scheduler/scheduler.ts";
import { Sequence } from "../scheduler/sequence.ts";
import { noAdapters } from "./adapters.ts";
import type { AdapterSlots } from "./adapters.ts";
import { checkPrompt, checkRequest } from "./checks.ts";
import type {
  Engine,
  EngineEvent,
  EngineFinishReason,
  EngineModelInfo,
  EngineRequest,
  EngineStatistics,
  OutputConstraint,
} from "./contract.ts";
import { RequestState } from "./requestState.ts";
import { constrainedTokens } from "./constrainedTokens.ts";

export interface EngineCoreOptions {
  runner: StepRunner;
  tokenizer: Tokenizer;
  info: EngineModelInfo;
  scheduler: SchedulerOptions;
  /** Tokens that end a sequence. */
  endTokens: readonly number[];
  /** Compiles constrained output; without one it is refused. */
  constraints?: ConstraintCompiler | undefined;
  adapters?: AdapterSlots | undefined;
  /** Ids before every prompt: virtual tokens of the adapter that the decoder has on. */
  promptPrefix?: readonly number[] | undefined;
  /** Frees what lies under the runner. */
  release?: (() => void) | undefined;
}

/** Who gets what a sequence's rows give. */
interface Receiver {
  takeOutput(output: PieceOutput | undefined, isLast: boolean): void;
  takeToken: RequestState["takeToken"];
  end(reason: EngineFinishReason, sequence: Sequence<EngineTask>): void;
  fail(error: unknown): void;
}

interface EngineTask extends RunnerTask {
  readonly receiver: Receiver;
}

interface QueuedStep {
  step: Step<EngineTask>;
  pending: PendingStep;
}

export class EngineCore implements Engine {
  readonly #options: EngineCoreOptions;
  readonly #scheduler: Scheduler<EngineTask>;
  readonly #adapters: AdapterSlots;
  readonly #live = new Set<Sequence<EngineTask>>();
  readonly #totals = {
    numPromptTokens: 0,
    numCachedPromptTokens: 0,
    numGeneratedTokens: 0,
    numSteps: 0,
    numRows: 0,
    stepSeconds: 0,
    hostSeconds: 0,
    waitSeconds: 0,
  };
  #numArrivals = 0;
  #loop: Promise<void> | undefined;
  #failure: unknown;
  #isDisposed = false;

  constructor(options: EngineCoreOptions) {
    this.#options = options;
    this.#scheduler = new Scheduler(options.scheduler);
    this.#adapters = options.adapters ?? noAdapters;
  }

  get info(): EngineModelInfo {
    return { ...this.#options.info, adapters: this.#adapters.names };
  }

  async *generate(request: EngineRequest, signal?: AbortSignal): AsyncGenerator<EngineEvent> {
    const { state, sequence } = this.#admit(request);
    const abort = (): void => this.#finish(sequence, "aborted");
    signal?.addEventListener("abort", abort);
    if (signal?.aborted === true) abort();
    try {
      for (;;) {
        for (const event of await state.events.next()) {
          yield event;
          if (event.type === "end") return;
        }
      }
    } finally {
      signal?.removeEventListener("abort", abort);
      abort();
    }
  }

  #admit(request: EngineRequest): { state: RequestState; sequence: Sequence<EngineTask> } {
    this.#assertUsable();
    const { info, tokenizer, endTokens } = this.#options;
    checkRequest(request, info);
    const { sampling, adapter } = request;
    const { promptPrefix = [] } = this.#options;
    const prompt = promptPrefix.length === 0 ? request.prompt : [...promptPrefix, ...request.prompt];
    const ends = sampling.stopAtEnd ? [...new Set([...endTokens, ...(request.endTokens ?? [])])] : [];
    const constraint = request.constraint && this.#compile(request.constraint).start(ends);
    const state = new RequestState(request, { tokenizer, endTokens: ends, constraint });
    const end = request.promptLogprobs === undefined ? 0 : prompt.length - 1;
    const begin = promptPrefix.length + (request.promptLogprobsFrom ?? 1) - 1;
    const task: EngineTask = {
      sampling,
      endTokens: ends,
      numLogprobs: request.numLogprobs,
      outputs:
        request.promptLogprobs === undefined
          ? undefined
          : {
              kind: "logprobs",
              numMostLikely: request.promptLogprobs,
              alternatives: (request.promptAlternatives ?? []).map(({ at, token }) => ({
                position: promptPrefix.length + at - 1,
                token,
              })),
            },
      allowedTokens: constraint && constrainedTokens(constraint, { sampling, endTokens: ends }),
      adapter: adapter === undefined ? 0 : this.#adapters.indexOf(adapter),
      receiver: state,
    };
    const sequence = this.#start(task, {
      prompt,
      maxNewTokens: Math.max(0, Math.min(sampling.maxTokens, info.maxContext - request.prompt.length)),
      priority: request.priority ?? 0,
      salt: adapter === undefined ? "" : (this.#adapters.saltOf?.(adapter) ?? adapter),
      outputs: begin < end ? { begin, end } : undefined,
    });
    return { state, sequence };
  }

  #compile(constraint: OutputConstraint): ReturnType<ConstraintCompiler["compile"]> {
    const { constraints } = this.#options;
    if (constraints !== undefined) return constraints.compile(constraint);
    throw new RequestError("engine", "expected an engine with constrained output, got one without");
  }

  #start(
    task: EngineTask,
    options: {
      prompt: readonly number[];
      maxNewTokens: number;
      priority: number;
      salt: string;
      outputs: { begin: number; end: number } | undefined;
    },
  ): Sequence<EngineTask> {
    const sequence = new Sequence<EngineTask>({ ...options, arrival: this.#numArrivals++, task });
    this.#scheduler.add(sequence);
    this.#live.add(sequence);
    this.#loop ??= this.#run().finally(() => {
      this.#loop = undefined;
    });
    return sequence;
  }

  async embed(prompts: readonly (readonly number[])[], pooling: "mean" | "last"): Promise<Float32Array[]> {
    this.#assertUsable();
    for (const prompt of prompts) checkPrompt(prompt, this.#options.info, 0);
    const sampling = parseSampling({ maxTokens: 0 });
    const outputs: OutputKind = { kind: "hidden" };
    return await Promise.all(
      prompts.map(
        (prompt) =>
          new Promise<Float32Array>((resolve, reject) => {
            const begin = pooling === "mean" ? 0 : prompt.length - 1;
            const receiver = new Pooling(this.#options.info.width, prompt.length - begin, {
              resolve,
              reject,
            });
            const task = {
              sampling,
              endTokens: [],
              numLogprobs: undefined,
              outputs,
              allowedTokens: undefined,
            };
            this.#start(
              { ...task, adapter: 0, receiver },
              { prompt, maxNewTokens: 0, priority: 0, salt: "", outputs: { begin, end: prompt.length } },
            );
          }),
      ),
    );
  }

  statistics(): EngineStatistics {
    const { pool, numRunning, numWaiting, numPreemptions } = this.#scheduler;
    const { numBlocks, numUsed } = pool;
    return { ...this.#totals, numRunning, numWaiting, numBlocks, numUsedBlocks: numUsed, numPreemptions };
  }

  loadAdapter(name: string, folder: string): Promise<void> {
    return this.#adapters.load(name, folder);
  }

  async unloadAdapter(name: string): Promise<void> {
    await this.#adapters.unload(name);
    // Another adapter may get the name.
    this.#scheduler.pool.prefixes.forget(name);
  }

  /** Runs steps until there is nothing to do. Never throws: what went wrong goes to the requests. */
  async #run(): Promise<void> {
    let ahead: QueuedStep | undefined;
    // Requests that arrive in the same turn go into the same step.
    await afterOtherWork();
    try {
      while (ahead !== undefined || this.#live.size > 0) {
        const next = this.#queueStep();
        if (ahead !== undefined) this.#take(ahead);
        ahead = next;
        // Without a further step there is nothing to overlap with; and some draws hang on the last tokens.
        if (ahead !== undefined && mustWait(ahead)) {
          this.#take(ahead);
          ahead = undefined;
        }
        await afterOtherWork();
      }
    } catch (error) {
      this.#fail(error);
    }
  }

  #queueStep(): QueuedStep | undefined {
    const startMs = performance.now();
    const step = this.#scheduler.plan();
    const plannedMs = performance.now();
    this.#totals.hostSeconds += (plannedMs - startMs) / 1000;
    if (step === undefined) return undefined;
    const pending = this.#options.runner.execute(step);
    this.#totals.stepSeconds += (performance.now() - plannedMs) / 1000;
    this.#totals.numSteps++;
    this.#totals.numRows += step.numRows;
    return { step, pending };
  }

  #take({ step, pending }: QueuedStep): void {
    const startMs = performance.now();
    const result = pending.wait();
    const waitedMs = performance.now();
    this.#totals.stepSeconds += (waitedMs - startMs) / 1000;
    this.#totals.waitSeconds += (waitedMs - startMs) / 1000;
    this.#deliver(step, result);
    this.#totals.hostSeconds += (performance.now() - waitedMs) / 1000;
  }

  #deliver({ pieces }: Step<EngineTask>, { tokens, logprobs, ranked, outputs }: StepResult): void {
    let draw = 0;
    for (const [index, piece] of pieces.entries()) {
      const { sequence, start, numRows, draws } = piece;
      const { receiver } = sequence.task;
      const end = start + numRows;
      if (start < sequence.outputEnd || end === sequence.numPromptTokens)
        receiver.takeOutput(outputs[index], end >= sequence.outputEnd);
      if (draws) {
        const drawn = { token: tokens[draw], logprob: logprobs[draw], ranked: ranked[draw] };
        draw++;
        this.#scheduler.accept(sequence, drawn.token);
        if (sequence.state === "finished") continue;
        this.#totals.numGeneratedTokens++;
        const reason = receiver.takeToken(drawn);
        const isLong = sequence.tokens.length - sequence.numPromptTokens >= sequence.maxNewTokens;
        if (reason !== undefined || isLong) this.#finish(sequence, reason ?? "length");
      } else if (sequence.maxNewTokens === 0 && end === sequence.numRows) {
        this.#finish(sequence, "length");
      }
    }
  }

  #finish(sequence: Sequence<EngineTask>, reason: EngineFinishReason): void {
    if (!this.#live.delete(sequence)) return;
    this.#scheduler.finish(sequence);
    this.#totals.numPromptTokens += sequence.numPromptTokens;
    this.#totals.numCachedPromptTokens += Math.min(sequence.numCachedAtStart ?? 0, sequence.numPromptTokens);
    sequence.task.receiver.end(reason, sequence);
  }

  #fail(error: unknown): void {
    this.#failure = error;
    const failure = failureOf(error);
    for (const sequence of this.#live) {
      this.#scheduler.finish(sequence);
      sequence.task.receiver.fail(failure);
    }
    this.#live.clear();
  }

  #assertUsable(): void {
    if (this.#failure !== undefined) throw failureOf(this.#failure);
    if (this.#isDisposed)
      throw failureOf(new NautilusError("engine", "expected an engine in use, got one that was closed"));
  }

  /** Ends what is under way as aborted, then frees the model. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#isDisposed) return;
    this.#isDisposed = true;
    for (const sequence of this.#live) this.#finish(sequence, "aborted");
    await this.#loop;
    this.#options.runner.dispose();
    this.#options.release?.();
  }
}

/** Pools the hidden states of one prompt. */
class Pooling implements Receiver {
  readonly #sum: Float64Array;
  readonly #numRows: number;
  readonly #done: { resolve: (pooled: Float32Array) => void; reject: (error: unknown) => void };

  constructor(
    width: number,
    numRows: number,
    done: { resolve: (pooled: Float32Array) => void; reject: (error: unknown) => void },
  ) {
    this.#sum = new Float64Array(width);
    this.#numRows = numRows;
    this.#done = done;
  }

  takeOutput(output: PieceOutput | undefined): void {
    if (output?.kind === "hidden") for (const [i, value] of output.sum.entries()) this.#sum[i] += value;
  }

  takeToken(): undefined {}

  end(reason: EngineFinishReason): void {
    if (reason === "aborted")
      this.fail(failureOf(new NautilusError("engine", "expected an engine in use, got one that was closed")));
    else this.#done.resolve(Float32Array.from(this.#sum, (value) => value / this.#numRows));
  }

  fail(error: unknown): void {
    this.#done.reject(error);
  }
}

function mustWait({ step, pending }: QueuedStep): boolean {
  return pending.isReady || step.pieces.some(({ draws, sequence }) => draws && needsHost(sequence.task));
}

function failureOf(error: unknown): EngineFailedError {
  if (error instanceof EngineFailedError) return error;
  return new EngineFailedError("engine", `the engine failed: ${messageOf(error)}`, { cause: error });
}

function afterOtherWork(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}
