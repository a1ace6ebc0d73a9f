/** Several requests at once, their events in one stream. */
import { EventQueue } from "./eventQueue.ts";
import type { Engine, EngineEvent, EngineRequest } from "./contract.ts";

export interface IndexedEvent {
  /** Which request, by its place. */
  index: number;
  event: EngineEvent;
}

/** Events of all requests as they come. Leaving the loop early aborts what still runs. Throws what `Engine.generate` throws. */
export async function* generateTogether(
  engine: Engine,
  requests: readonly EngineRequest[],
  signal?: AbortSignal,
): AsyncGenerator<IndexedEvent> {
  const queue = new EventQueue<IndexedEvent>();
  const leaving = new AbortController();
  const signals = signal === undefined ? leaving.signal : AbortSignal.any([signal, leaving.signal]);
  const run = async (request: EngineRequest, index: number): Promise<void> => {
    try {
      for await (const event of engine.generate(request, signals)) queue.push({ index, event });
    } catch (error) {
      queue.fail(error);
    }
  };
  const all = requests.map(run);
  let numEnded = 0;
  try {
    while (numEnded < requests.length) {
      for (const indexed of await queue.next()) {
        if (indexed.event.type === "end") numEnded++;
        yield indexed;
      }
    }
  } finally {
    leaving.abort();
    await Promise.all(all);
  }
}
