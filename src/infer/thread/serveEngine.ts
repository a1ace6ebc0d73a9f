/** The worker's end: answers messages of a port with an engine of its own thread. Events of a turn go in one message. */
import type { MessagePort } from "node:worker_threads";
import { describeFailure, EngineFailedError } from "../../base/index.ts";
import type { Engine, EngineEvent } from "../engine/contract.ts";
import type { FromEngine, ToEngine } from "./messages.ts";

/** Between two reports of the engine's statistics while it works. */
const stateMs = 100;

/** Serves until it is told to close. `onFailure` is called when the engine has died, after those who asked it were told. */
export function serveEngine(
  port: MessagePort,
  engine: Engine,
  onFailure: (error: unknown) => Promise<void>,
): void {
  new EngineServer(port, engine, onFailure).start();
}

class EngineServer {
  readonly #port: MessagePort;
  readonly #engine: Engine;
  readonly #onFailure: (error: unknown) => Promise<void>;
  readonly #aborts = new Map<number, AbortController>();
  #events: { id: number; event: EngineEvent }[] = [];
  #isFlushing = false;
  #lastState = "";

  constructor(port: MessagePort, engine: Engine, onFailure: (error: unknown) => Promise<void>) {
    this.#port = port;
    this.#engine = engine;
    this.#onFailure = onFailure;
  }

  start(): void {
    const timer = setInterval(() => this.#tellState(), stateMs);
    timer.unref();
    this.#port.on("message", (message: ToEngine) => {
      if (message.type === "close") {
        clearInterval(timer);
        void this.#close();
      } else this.#take(message);
    });
    this.#send({ type: "ready", state: this.#state() });
  }

  async #close(): Promise<void> {
    try {
      await this.#engine[Symbol.asyncDispose]();
    } finally {
      this.#port.close();
    }
  }

  #send(message: FromEngine): void {
    this.#port.postMessage(message, []);
  }

  #state(): { info: Engine["info"]; statistics: ReturnType<Engine["statistics"]> } {
    return { info: this.#engine.info, statistics: this.#engine.statistics() };
  }

  #tellState(): void {
    const state = this.#state();
    const text = JSON.stringify(state);
    if (text === this.#lastState) return;
    this.#lastState = text;
    this.#send({ type: "state", state });
  }

  #take(message: Exclude<ToEngine, { type: "close" }>): void {
    const engine = this.#engine;
    switch (message.type) {
      case "generate":
        void this.#generate(message);
        break;
      case "abort":
        this.#aborts.get(message.id)?.abort();
        break;
      case "embed":
        void this.#answer(message.id, () => engine.embed(message.prompts, message.pooling));
        break;
      case "load-adapter":
        void this.#answer(message.id, () => engine.loadAdapter(message.name, message.folder));
        break;
      case "unload-adapter":
        void this.#answer(message.id, () => engine.unloadAdapter(message.name));
        break;
    }
  }

  async #generate({ id, request }: ToEngine & { type: "generate" }): Promise<void> {
    const abort = new AbortController();
    this.#aborts.set(id, abort);
    try {
      for await (const event of this.#engine.generate(request, abort.signal)) this.#queue(id, event);
    } catch (error) {
      this.#fail(id, error);
    } finally {
      this.#aborts.delete(id);
    }
  }

  async #answer(id: number, work: () => Promise<Float32Array[] | void>): Promise<void> {
    try {
      const value = (await work()) ?? undefined;
      // Whoever loaded an adapter finds it in `info`.
      this.#tellState();
      this.#send({ type: "done", id, value });
    } catch (error) {
      this.#fail(id, error);
    }
  }

  #queue(id: number, event: EngineEvent): void {
    this.#events.push({ id, event });
    if (this.#isFlushing) return;
    this.#isFlushing = true;
    // When all that a step gave is here, and before the next step is waited for: an immediate would come after the engine's own.
    process.nextTick(() => this.#flush());
  }

  #flush(): void {
    this.#isFlushing = false;
    if (this.#events.length === 0) return;
    this.#send({ type: "events", events: this.#events });
    this.#events = [];
  }

  #fail(id: number, error: unknown): void {
    this.#flush();
    this.#send({ type: "failed", id, error: describeFailure(error, "engine") });
    // All that ran is told in this turn; then there is nothing left to serve.
    if (error instanceof EngineFailedError) setImmediate(() => void this.#onFailure(error));
  }
}
