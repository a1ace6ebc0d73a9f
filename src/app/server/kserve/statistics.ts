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
  readonly queue: Duration = { count: 0, ns: 0 };
}

export class InferStatistics {
  readonly #byModel = new Map<string, ModelCounts>();

  /** Counts a request that was answered, or was not; `queueMs` of its `ms` it waited for an engine. */
  record(
    model: string,
    {
      isAnswered,
      numPrompts,
      ms,
      queueMs,
    }: { isAnswered: boolean; numPrompts: number; ms: number; queueMs: number },
  ): void {
    let counts = this.#byModel.get(model);
    if (counts === undefined) this.#byModel.set(model, (counts = new ModelCounts()));
    const duration = isAnswered ? counts.success : counts.fail;
    duration.count++;
    duration.ns += Math.round(ms * 1e6);
    if (!isAnswered) return;
    counts.queue.count++;
    counts.queue.ns += Math.round(queueMs * 1e6);
    counts.numPrompts += numPrompts;
    counts.lastInferenceMs = Date.now();
  }

  /**
   * One model's entry. An answered request's time is that in the queue and, for all the rest, in the engine: what reading inputs and
   * writing outputs take stays at nought, since it goes on beside the engine's steps.
   */
  of(model: string, numSteps: number) {
    const { lastInferenceMs, numPrompts, success, fail, queue } =
      this.#byModel.get(model) ?? new ModelCounts();
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
        queue: { ...queue },
        compute_input: none(),
        compute_infer: { count: success.count, ns: success.ns - queue.ns },
        compute_output: none(),
        cache_hit: none(),
        cache_miss: none(),
      },
      batch_stats: [],
    };
  }
}
