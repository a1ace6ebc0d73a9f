/**
 * An engine in a worker thread, as an engine: the calling thread passes messages and computes nothing. When the worker dies, what was
 * under way fails, and another worker is started and given the adapters that were loaded; until it is ready requests are refused.
 *
 * A consumer that reads slowly holds no worker up: what waits for it is at most the tokens it asked for.
 */
import type { Worker } from "node:worker_threads";
import { EngineFailedError, failureError, invariant, messageOf, NautilusError } from "../../base/index.ts";
import type {
  Engine,
  EngineEvent,
  EngineModelInfo,
  EngineRequest,
  EngineStatistics,
} from "../engine/contract.ts";
import { EventQueue } from "../engine/eventQueue.ts";
import type { FromEngine, State, ToEngine } from "./messages.ts";

export interface ThreadedEngineOptions {
  /** Starts a worker that calls `serveEngine` or answers that it cannot. */
  start: () => Worker;
  /** Told when a worker has died, with the reason. */
  onCrash?: ((error: unknown) => void) | undefined;
  /** Milliseconds before the first restart; doubled at each further one that fails. Default 100. */
  restartMs?: number | undefined;
}

interface Call {
  resolve: (value: Float32Array[] | undefined) => void;
  reject: (error: unknown) => void;
}

const mostRestartMs = 30_000;

export class ThreadedEngine implements Engine {
  readonly #options: ThreadedEngineOptions;
  readonly #streams = new Map<number, EventQueue<EngineEvent>>();
  readonly #calls = new Map<number, Call>();
  #worker: Worker;
  /** The worker between being ready and its end. */
  #running: Worker | undefined;
  #state: State | undefined;
  /** Folders of the loaded adapters by name, in the order they came: a new worker is given the same. */
  readonly #adapters = new Map<string, string>();
  #isReady = false;
  #isClosing = false;
  #restartMs: number;
  #restartTimer: NodeJS.Timeout | undefined;
  #nextId = 0;
  #numRestarts = 0;
  #closed: Promise<void> | undefined;

  private constructor(options: ThreadedEngineOptions, opened: Call) {
    this.#options = options;
    this.#restartMs = options.restartMs ?? 100;
    this.#worker = this.#start(opened);
  }

  /** Starts the worker and waits until its model is open. Throws what opening it throws. */
  static async open(options: ThreadedEngineOptions): Promise<ThreadedEngine> {
    const { promise, resolve, reject } = Promise.withResolvers<Float32Array[] | undefined>();
    const engine = new ThreadedEngine(options, { resolve, reject });
    try {
      await promise;
      return engine;
    } catch (error) {
      await engine[Symbol.asyncDispose]();
      throw error;
    }
  }

  get info(): EngineModelInfo {
    invariant(this.#state !== undefined, "an engine that was opened");
    return this.#state.info;
  }

  statistics(): EngineStatistics {
    invariant(this.#state !== undefined, "an engine that was opened");
    return this.#state.statistics;
  }

  /** Workers started after one died. */
  get numRestarts(): number {
    return this.#numRestarts;
  }

  /** Whether requests are taken: not while a worker is being started again. */
  get isReady(): boolean {
    return this.#isReady;
  }

  async *generate(request: EngineRequest, signal?: AbortSignal): AsyncGenerator<EngineEvent> {
    const id = this.#nextId++;
    const events = new EventQueue<EngineEvent>();
    this.#send({ type: "generate", id, request });
    this.#streams.set(id, events);
    const abort = (): void => this.#sendIfReady({ type: "abort", id });
    signal?.addEventListener("abort", abort);
    if (signal?.aborted === true) abort();
    try {
      for (;;) {
        for (const event of await events.next()) {
          yield event;
          if (event.type === "end") return;
        }
      }
    } finally {
      signal?.removeEventListener("abort", abort);
      if (this.#streams.delete(id)) abort();
    }
  }

  async embed(prompts: readonly (readonly number[])[], pooling: "mean" | "last"): Promise<Float32Array[]> {
    return (await this.#call((id) => ({ type: "embed", id, prompts, pooling }))) ?? [];
  }

  async loadAdapter(name: string, folder: string): Promise<void> {
    await this.#call((id) => ({ type: "load-adapter", id, name, folder }));
    this.#adapters.set(name, folder);
  }

  async unloadAdapter(name: string): Promise<void> {
    await this.#call((id) => ({ type: "unload-adapter", id, name }));
    this.#adapters.delete(name);
  }

  /** Gives a new worker the adapters of the last one. What cannot be loaded any more is left out. */
  async #restoreAdapters(worker: Worker): Promise<void> {
    for (const [name, folder] of this.#adapters) {
      const id = this.#nextId++;
      const message: ToEngine = { type: "load-adapter", id, name, folder };
      const isDone = await new Promise<boolean>((resolve) => {
        this.#calls.set(id, { resolve: () => resolve(true), reject: () => resolve(false) });
        worker.postMessage(message, []);
      });
      if (this.#running !== worker) return;
      if (!isDone) this.#adapters.delete(name);
    }
    this.#isReady = true;
  }

  #call(message: (id: number) => ToEngine): Promise<Float32Array[] | undefined> {
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#send(message(id));
      this.#calls.set(id, { resolve, reject });
    });
  }

  #send(message: ToEngine): void {
    if (!this.#isReady) {
      const why = this.#isClosing ? "one that was closed" : "one that is being started again";
      const details = this.#isClosing ? {} : { hint: "try again in a moment" };
      throw new EngineFailedError("engine", `expected an engine that is ready, got ${why}`, details);
    }
    this.#worker.postMessage(message, []);
  }

  #sendIfReady(message: ToEngine): void {
    if (this.#isReady) this.#worker.postMessage(message, []);
  }

  #start(opened: Call | undefined): Worker {
    const worker = this.#options.start();
    let failure: unknown;
    worker.on("message", (message: FromEngine) => {
      if (message.type === "refused") {
        failure = failureError(message.error);
        opened?.reject(failure);
      } else this.#take(message);
      if (message.type === "ready") opened?.resolve(undefined);
    });
    worker.on("error", (error) => {
      failure = error;
      opened?.reject(failureOf(error));
    });
    worker.on("exit", (code) => {
      const reason = failure ?? new NautilusError("engine", `the worker ended with code ${code}`);
      opened?.reject(failureOf(reason));
      this.#onExit(reason);
    });
    return worker;
  }

  #take(message: Exclude<FromEngine, { type: "refused" }>): void {
    switch (message.type) {
      case "ready":
        this.#state = message.state;
        this.#running = this.#worker;
        if (this.#adapters.size === 0) this.#isReady = true;
        else void this.#restoreAdapters(this.#worker);
        this.#restartMs = this.#options.restartMs ?? 100;
        break;
      case "state":
        this.#state = message.state;
        break;
      case "events":
        for (const { id, event } of message.events) {
          this.#streams.get(id)?.push(event);
          if (event.type === "end") this.#streams.delete(id);
        }
        break;
      case "done":
        this.#calls.get(message.id)?.resolve(message.value);
        this.#calls.delete(message.id);
        break;
      case "failed": {
        const error = failureError(message.error);
        this.#streams.get(message.id)?.fail(error);
        this.#streams.delete(message.id);
        this.#calls.get(message.id)?.reject(error);
        this.#calls.delete(message.id);
      }
    }
  }

  #onExit(reason: unknown): void {
    this.#isReady = false;
    this.#running = undefined;
    const failure = failureOf(reason);
    for (const events of this.#streams.values()) events.fail(failure);
    for (const { reject } of this.#calls.values()) reject(failure);
    this.#streams.clear();
    this.#calls.clear();
    // Nothing was open yet, or nothing is wanted any more.
    if (this.#isClosing || this.#state === undefined) return;
    this.#state = {
      ...this.#state,
      statistics: { ...this.#state.statistics, numRunning: 0, numWaiting: 0, numUsedBlocks: 0 },
    };
    this.#options.onCrash?.(reason);
    this.#restartTimer = setTimeout(() => {
      this.#numRestarts++;
      this.#worker = this.#start(undefined);
    }, this.#restartMs);
    this.#restartMs = Math.min(mostRestartMs, 2 * this.#restartMs);
  }

  /** Ends what is under way as aborted, and waits for the worker to end. */
  [Symbol.asyncDispose](): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    this.#isClosing = true;
    clearTimeout(this.#restartTimer);
    if (!this.#isReady) {
      await this.#worker.terminate();
      return;
    }
    const ended = new Promise<void>((resolve) => {
      this.#worker.once("exit", () => resolve());
    });
    this.#worker.postMessage({ type: "close" } satisfies ToEngine, []);
    this.#isReady = false;
    await ended;
  }
}

function failureOf(reason: unknown): NautilusError {
  if (reason instanceof NautilusError && reason.code !== "error") return reason;
  return new EngineFailedError("engine", `the engine's worker failed: ${messageOf(reason)}`, {
    cause: reason,
  });
}
