/** What Prometheus is told. One registry a server, no globals. Seconds and tokens, as its conventions ask. */
import { monitorEventLoopDelay, performance } from "node:perf_hooks";
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import type { EngineStatistics } from "../../infer/index.ts";
import type { Admission } from "./admission.ts";
import type { ServedModels } from "./servedModel.ts";
import { TokenRate } from "./tokenRate.ts";

const fastBuckets = [0.001, 0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1, 2];
const slowBuckets = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600];

export class ServerMetrics implements Disposable {
  readonly registry = new Registry();
  readonly requests: Counter<"protocol" | "route" | "status">;
  readonly requestSeconds: Histogram<"protocol" | "route">;
  readonly queueSeconds: Histogram<"model">;
  readonly firstTokenSeconds: Histogram<"model">;
  readonly interTokenSeconds: Histogram<"model">;
  readonly promptTokens: Counter<"model">;
  readonly cachedPromptTokens: Counter<"model">;
  readonly generatedTokens: Counter<"model">;
  readonly sequences: Counter<"model" | "reason">;
  readonly #rates = new Map<string, TokenRate>();
  readonly #delay = monitorEventLoopDelay({ resolution: 10 });

  constructor(models: ServedModels, admission: Admission) {
    const registers = [this.registry];
    const counter = <Label extends string>(name: string, help: string, labelNames: Label[]) =>
      new Counter({ name: `nautilus_${name}`, help, labelNames, registers });
    const histogram = <Label extends string>(
      name: string,
      help: string,
      { labelNames, buckets }: { labelNames: Label[]; buckets: number[] },
    ) => new Histogram({ name: `nautilus_${name}`, help, labelNames, buckets, registers });
    this.requests = counter("requests_total", "Requests answered", ["protocol", "route", "status"]);
    this.requestSeconds = histogram("request_seconds", "From a request's arrival to the end of its answer", {
      labelNames: ["protocol", "route"],
      buckets: slowBuckets,
    });
    const byModel = (buckets: number[]) => ({ labelNames: ["model" as const], buckets });
    this.queueSeconds = histogram("queue_seconds", "Waiting for an engine", byModel(slowBuckets));
    this.firstTokenSeconds = histogram(
      "time_to_first_token_seconds",
      "From a request's arrival to a sequence's first token",
      byModel(slowBuckets),
    );
    this.interTokenSeconds = histogram(
      "inter_token_seconds",
      "Between tokens of one sequence",
      byModel(fastBuckets),
    );
    this.promptTokens = counter("prompt_tokens_total", "Prompt tokens read", ["model"]);
    this.cachedPromptTokens = counter("cached_prompt_tokens_total", "Of them, found in the cache", ["model"]);
    this.generatedTokens = counter("generated_tokens_total", "Tokens generated", ["model"]);
    this.sequences = counter("sequences_total", "Sequences ended, by the reason", ["model", "reason"]);
    this.#addGauges(models, admission);
    this.#delay.enable();
  }

  /** Counts a generated token. */
  countToken(model: string): void {
    this.generatedTokens.inc({ model });
    this.#rate(model).add(1, performance.now());
  }

  /** Tokens a second over the last seconds. */
  tokensPerSecond(model: string): number {
    return this.#rate(model).perSecond(performance.now());
  }

  /** Delays of the event loop since the start, in seconds. */
  eventLoopDelay(): { mean: number; p50: number; p99: number; max: number } {
    const seconds = (nanoseconds: number): number =>
      Number.isFinite(nanoseconds) ? Math.max(0, nanoseconds / 1e9 - 0.01) : 0;
    const { mean, max } = this.#delay;
    return {
      mean: seconds(mean),
      p50: seconds(this.#delay.percentile(50)),
      p99: seconds(this.#delay.percentile(99)),
      max: seconds(max),
    };
  }

  [Symbol.dispose](): void {
    this.#delay.disable();
    this.registry.clear();
  }

  #rate(model: string): TokenRate {
    let rate = this.#rates.get(model);
    if (rate === undefined) this.#rates.set(model, (rate = new TokenRate()));
    return rate;
  }

  #addGauges(models: ServedModels, admission: Admission): void {
    const registers = [this.registry];
    const gauge = (name: string, help: string, read: () => number): void => {
      void new Gauge({
        name: `nautilus_${name}`,
        help,
        registers,
        collect() {
          this.set(read());
        },
      });
    };
    gauge("sequences_admitted", "Sequences handed to engines", () => admission.numHeld);
    gauge("queue_depth", "Sequences that wait in the server", () => admission.numWaiting);
    gauge("resident_memory_bytes", "Resident memory of the process", () => process.memoryUsage.rss());
    const cpu = new Counter({
      name: "nautilus_process_cpu_seconds_total",
      help: "Processor time of the process, all threads",
      registers,
      collect: () => {
        const { user, system } = process.cpuUsage();
        cpu.reset();
        cpu.inc((user + system) / 1e6);
      },
    });
    const delay = new Gauge({
      name: "nautilus_event_loop_delay_seconds",
      help: "How late the event loop is, beyond its timer",
      labelNames: ["quantile"],
      registers,
      collect: () => {
        const { p50, p99, max } = this.eventLoopDelay();
        delay.set({ quantile: "0.5" }, p50);
        delay.set({ quantile: "0.99" }, p99);
        delay.set({ quantile: "1" }, max);
      },
    });
    const engine = (name: string, help: string, read: (statistics: EngineStatistics) => number): void => {
      const made: Gauge<"model"> = new Gauge({
        name: `nautilus_engine_${name}`,
        help,
        labelNames: ["model"],
        registers,
        collect: () => {
          for (const model of models.list()) made.set({ model: model.name }, read(model.engine.statistics()));
        },
      });
    };
    engine("running_sequences", "Sequences in the running batch", (s) => s.numRunning);
    engine("waiting_sequences", "Sequences that wait for cache or budget", (s) => s.numWaiting);
    engine("kv_blocks", "Blocks of the cache", (s) => s.numBlocks);
    engine("kv_blocks_used", "Blocks that running sequences hold", (s) => s.numUsedBlocks);
    engine("kv_use_ratio", "Share of the cache in use", (s) => s.numUsedBlocks / Math.max(1, s.numBlocks));
    engine("preemptions", "Sequences put back for want of cache, in all", (s) => s.numPreemptions);
    engine("steps", "Steps of the engine, in all", (s) => s.numSteps);
    engine("step_seconds", "Seconds inside steps, in all", (s) => s.stepSeconds);
    engine("wait_seconds", "Seconds of steps spent waiting for results, in all", (s) => s.waitSeconds);
    engine("host_seconds", "Seconds in the scheduler's own code, in all", (s) => s.hostSeconds);
    const held: Gauge<"model" | "dtype" | "quantise" | "kv_cache"> = new Gauge({
      name: "nautilus_model_info",
      help: "What weights and cache are held as; always 1",
      labelNames: ["model", "dtype", "quantise", "kv_cache"],
      registers,
      collect: () => {
        for (const { name, engine } of models.list()) {
          const { dtype, quantise, kvCache } = engine.info;
          held.set({ model: name, dtype, quantise: quantise ?? "none", kv_cache: kvCache }, 1);
        }
      },
    });
    const rate: Gauge<"model"> = new Gauge({
      name: "nautilus_generated_tokens_per_second",
      help: "Over the last ten seconds",
      labelNames: ["model"],
      registers,
      collect: () => {
        for (const { name } of models.list()) rate.set({ model: name }, this.tokensPerSecond(name));
      },
    });
  }
}
