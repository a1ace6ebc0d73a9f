/**
 * Worker threads that encode units, each with an encoder of its own. Units go to the worker with the least to do; what comes
 * of a unit does not depend on which that is. A worker that dies fails everything it had.
 */
import { Worker } from "node:worker_threads";
import { DataError, failureError, messageOf } from "../../base/index.ts";
import type { EncoderSpec } from "../encoder.ts";
import type { RawUnit } from "../sources/unit.ts";
import type { EncodedUnit } from "./encodeUnit.ts";
import type { WorkerReply, WorkerRequest, WorkerStart } from "./messages.ts";

interface Waiting {
  readonly resolve: (encoded: EncodedUnit) => void;
  readonly reject: (error: Error) => void;
}

interface Member {
  readonly worker: Worker;
  readonly waiting: Map<number, Waiting>;
  failed: Error | undefined;
}

/** The worker's file: TypeScript in a checkout, JavaScript in an installed package. */
const workerUrl = new URL(import.meta.url.endsWith(".ts") ? "./worker.ts" : "./worker.js", import.meta.url);

export class EncodingPool {
  readonly #members: readonly Member[];
  #nextId = 0;

  constructor(encoder: EncoderSpec, numWorkers: number) {
    const start: WorkerStart = { encoder };
    this.#members = Array.from({ length: numWorkers }, () => startMember(start));
  }

  /** Encodes `unit`, whose bytes move to the worker. Rejects with DataError and the like. */
  encode(unit: RawUnit): Promise<EncodedUnit> {
    const member = this.#members.reduce((least, next) =>
      next.waiting.size < least.waiting.size ? next : least,
    );
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      if (member.failed !== undefined) {
        reject(member.failed);
        return;
      }
      member.waiting.set(id, { resolve, reject });
      const request: WorkerRequest = { id, unit };
      member.worker.postMessage(request, [unit.bytes.buffer as ArrayBuffer]);
    });
  }

  /** Ends the workers, whatever they are doing. */
  async close(): Promise<void> {
    await Promise.all(this.#members.map(({ worker }) => worker.terminate()));
  }
}

function startMember(start: WorkerStart): Member {
  const worker = new Worker(workerUrl, { workerData: start });
  const member: Member = { worker, waiting: new Map(), failed: undefined };
  const fail = (error: Error): void => {
    member.failed ??= error;
    for (const { reject } of member.waiting.values()) reject(error);
    member.waiting.clear();
  };
  worker.on("message", (reply: WorkerReply) => {
    if (reply.id === -1 && "failure" in reply) {
      fail(failureError(reply.failure));
      return;
    }
    const waiting = member.waiting.get(reply.id);
    member.waiting.delete(reply.id);
    if ("failure" in reply) waiting?.reject(failureError(reply.failure));
    else waiting?.resolve(reply.encoded);
  });
  const died = (reason: string): DataError =>
    new DataError("data", `expected a data worker to go on, got ${reason}`, {
      hint: "with little memory, use fewer workers",
    });
  worker.on("error", (error) => fail(died(messageOf(error))));
  worker.on("exit", (code) => fail(died(`exit code ${code}`)));
  return member;
}
