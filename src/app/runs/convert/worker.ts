/** The body of the converting worker thread. */
import { parentPort, workerData } from "node:worker_threads";
import { describeFailure, invariant, setLogSink } from "../../../base/index.ts";
import { runConversion } from "./job.ts";
import type { ConversionRequest } from "./job.ts";
import type { WorkerMessage } from "./messages.ts";

/** Between two messages on the progress: a piece of a megabyte takes less than one message. */
const quietMs = 50;

invariant(parentPort !== null, "the converting worker was run outside a worker thread");
const port = parentPort;
const send = (message: WorkerMessage): void => port.postMessage(message);
setLogSink((level, text) => send({ kind: "log", level, text }));
const request: ConversionRequest = workerData;
let lastMs = -Infinity;
try {
  const outcome = await runConversion(request, (progress) => {
    const nowMs = performance.now();
    if (nowMs - lastMs < quietMs && progress.doneBytes < progress.totalBytes) return;
    lastMs = nowMs;
    send({ kind: "progress", progress });
  });
  send({ kind: "done", outcome });
} catch (error) {
  send({ kind: "failed", failure: describeFailure(error, "convert") });
}
