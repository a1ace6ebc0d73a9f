/** The body of a preparing worker thread: makes its encoder once, then answers units with their tokens. */
import { type MessagePort, parentPort, workerData } from "node:worker_threads";
import { describeFailure, invariant } from "../../base/index.ts";
import { encodeUnit } from "./encodeUnit.ts";
import { loadEncoder } from "./loadEncoder.ts";
import type { WorkerReply, WorkerRequest, WorkerStart } from "./messages.ts";

async function serve(port: MessagePort, start: WorkerStart): Promise<void> {
  const encoder = await loadEncoder(start.encoder);
  port.on("message", ({ id, unit }: WorkerRequest) => {
    try {
      const encoded = encodeUnit(unit, encoder);
      const reply: WorkerReply = { id, encoded };
      port.postMessage(
        reply,
        [encoded.tokens, encoded.lengths, encoded.textBytes].map(({ buffer }) => buffer as ArrayBuffer),
      );
    } catch (error) {
      port.postMessage({ id, failure: describeFailure(error, "data") } satisfies WorkerReply);
    }
  });
}

invariant(parentPort !== null, "the data worker was run outside a worker thread");
const port = parentPort;
const start: WorkerStart = workerData;
try {
  await serve(port, start);
} catch (error) {
  port.postMessage({ id: -1, failure: describeFailure(error, "data") } satisfies WorkerReply);
}
