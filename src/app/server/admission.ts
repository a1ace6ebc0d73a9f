/**
 * How many sequences engines work on at a time, and how many may wait for that, in order of arrival.
 * Invariant: a slot is given back exactly once, whatever becomes of its holder.
 */
import { Refusal } from "./refusal.ts";

interface Waiter {
  grant(): void;
}

export class Admission {
  readonly #maxConcurrent: number;
  readonly #maxQueue: number;
  /** In order of arrival: Sets keep it, and those who give up leave from the middle. */
  readonly #waiting = new Set<Waiter>();
  #numHeld = 0;

  constructor({ maxConcurrent, maxQueue }: { maxConcurrent: number; maxQueue: number }) {
    this.#maxConcurrent = maxConcurrent;
    this.#maxQueue = maxQueue;
  }

  get numHeld(): number {
    return this.#numHeld;
  }

  get numWaiting(): number {
    return this.#waiting.size;
  }

  /** Throws a refusal (429) where `numSequences` more would neither run nor fit into the queue. */
  check(numSequences: number): void {
    const numFree = this.#maxConcurrent - this.#numHeld;
    const room = Math.max(0, numFree) + this.#maxQueue - this.#waiting.size;
    // A request larger than queue and slots together is let in where nothing waits: its limit is another one.
    if (numSequences <= room || (this.#waiting.size === 0 && numFree > 0)) return;
    throw new Refusal(429, `expected room in the queue, got ${this.#waiting.size} sequences waiting`, {
      hint: "try again later",
      reason: "queue_full",
      retryAfterSeconds: 1 + Math.floor(this.#waiting.size / this.#maxConcurrent),
    });
  }

  /** Waits for a slot; the result gives it back when disposed. Throws the signal's reason when that aborts first. */
  async enter(signal: AbortSignal): Promise<Disposable> {
    signal.throwIfAborted();
    if (this.#numHeld < this.#maxConcurrent) this.#numHeld++;
    else await this.#wait(signal);
    let isHeld = true;
    return {
      [Symbol.dispose]: () => {
        if (!isHeld) return;
        isHeld = false;
        this.#leave();
      },
    };
  }

  #wait(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        this.#waiting.delete(waiter);
        reject(signal.reason instanceof Error ? signal.reason : new Refusal(499, "the request was given up"));
      };
      const waiter = {
        grant: () => {
          signal.removeEventListener("abort", onAbort);
          resolve();
        },
      };
      this.#waiting.add(waiter);
      signal.addEventListener("abort", onAbort, { once: true });
    });
  }

  /** The slot goes to the first who waits. */
  #leave(): void {
    for (const waiter of this.#waiting) {
      this.#waiting.delete(waiter);
      waiter.grant();
      return;
    }
    this.#numHeld--;
  }
}
