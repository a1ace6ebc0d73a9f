/** Counts of inference requests by model, in the form of the protocol's statistics extension. Durations are nanoseconds. */
export interface Duration {
  count: number;
  ns: number;
}

class ModelCounts {
  lastInferenceMs = 0;
  numPrompts = 0;
  readonly success: Duration = { count: 0, ns: 0 };
  readonly fail: Duration = { count: 0, ns: 0 };
}

export class InferStatistics {
  readonly #byModel = new Map<string, ModelCounts>();

  /** Counts a request that was answered, or was not. */
  record(
    model: string,
    { isAnswered, numPrompts, ms }: { isAnswered: boolean; numPrompts: number; ms: number },
  ): void {
    let counts = this.#byModel.get(model);
    if (counts === undefined) this.#byModel.set(model, (counts = new ModelCounts()));
    const duration = isAnswered ? counts.success : counts.fail;
    duration.count++;
    duration.ns += Math.round(ms * 1e6);
    if (!isAnswered) return;
    counts.numPrompts += numPrompts;
    counts.lastInferenceMs = Date.now();
  }

  /**
   * One model's entry. What the server cannot tell apart stays at nought: requests share steps, so that a request's time in the queue
   * and in the engine is in its success alone.
   */
  of(model: string, numSteps: number) {
    const { lastInferenceMs, numPrompts, success, fail } = this.#byModel.get(model) ?? new ModelCounts();
    const none = (): Duration => ({ count: 0, ns: 0 });
    return {
      name: model,
      version: "1",
      last_inference: lastInferenceMs,
      inference_count: numPrompts,
      execution_count: numSteps,
      inference_stats: {
        success: { ...success },
        fail: { ...fail },
        queue: none(),
        compute_input: none(),
        compute_infer: { ...success },
        compute_output: none(),
        cache_hit: none(),
        cache_miss: none(),
      },
      batch_stats: [],
    };
  }
}
