/** A batch that never ends, for measurements: the same prompts, one more token each a step, one step ahead of the host. */
import { invariant } from "../../base/index.ts";
import { parseSampling } from "../sampling.ts";
import { Scheduler } from "../scheduler/scheduler.ts";
import type { SchedulerOptions, Step } from "../scheduler/scheduler.ts";
import { Sequence } from "../scheduler/sequence.ts";
import type { PendingStep, RunnerTask, StepRunner } from "./task.ts";

const greedy: RunnerTask = {
  sampling: parseSampling({ temperature: 0 }),
  endTokens: [],
  numLogprobs: undefined,
  outputs: undefined,
  allowedTokens: undefined,
  adapter: 0,
};

export class SteadyBatch {
  readonly #runner: StepRunner;
  readonly #scheduler: Scheduler<RunnerTask>;
  #ahead: { step: Step<RunnerTask>; pending: PendingStep } | undefined;

  /** Reads the prompts and draws the first tokens. */
  constructor(
    runner: StepRunner,
    options: SchedulerOptions & { prompts: readonly (readonly number[])[]; maxNewTokens: number },
  ) {
    this.#runner = runner;
    this.#scheduler = new Scheduler({ ...options, reusesPrefixes: false });
    for (const [arrival, prompt] of options.prompts.entries()) {
      const { maxNewTokens } = options;
      this.#scheduler.add(
        new Sequence({ prompt, maxNewTokens, priority: 0, arrival, salt: "", task: greedy }),
      );
    }
    let isDecode = false;
    while (!isDecode) {
      const { step, pending } = this.#queue();
      isDecode = step.isDecode && step.pieces.length === options.prompts.length;
      this.#accept(step, pending);
    }
  }

  #queue(): { step: Step<RunnerTask>; pending: PendingStep } {
    const step = this.#scheduler.plan();
    invariant(step !== undefined, "a batch that goes on");
    return { step, pending: this.#runner.execute(step) };
  }

  #accept({ pieces }: Step<RunnerTask>, pending: PendingStep): void {
    const { tokens } = pending.wait();
    for (const [draw, { sequence }] of pieces.filter(({ draws }) => draws).entries())
      this.#scheduler.accept(sequence, tokens[draw]);
  }

  /** Queues a step, then waits for the one before. */
  step(): void {
    const next = this.#queue();
    if (this.#ahead !== undefined) this.#accept(this.#ahead.step, this.#ahead.pending);
    this.#ahead = next;
  }

  /** Waits for the last step. */
  settle(): void {
    if (this.#ahead !== undefined) this.#accept(this.#ahead.step, this.#ahead.pending);
    this.#ahead = undefined;
  }
}
