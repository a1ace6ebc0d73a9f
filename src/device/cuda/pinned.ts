/** Pinned host memory, which the copy engines read and write at the full rate of the bus. */
import { viewMemory } from "../ffi.ts";
import type { CudaSession } from "./session.ts";

/** Pinned host memory with an event that says when the GPU is done with it. */
export class PinnedBlock {
  readonly address: number;
  readonly byteLength: number;
  readonly bytes: Uint8Array;
  readonly event: number;
  isPending = false;
  readonly #session: CudaSession;

  constructor(session: CudaSession, byteLength: number) {
    const { functions, out } = session.driver;
    session.check("cuMemHostAlloc", functions.cuMemHostAlloc(out.address, byteLength, 0));
    this.address = out.word(0);
    this.byteLength = byteLength;
    this.bytes = new Uint8Array(viewMemory(this.address, byteLength));
    this.event = session.createEvent(false);
    this.#session = session;
  }

  /** Marks the end of what is queued so far as the moment when the block is free. */
  record(): void {
    this.#session.check(
      "cuEventRecord",
      this.#session.functions.cuEventRecord(this.event, this.#session.stream),
    );
    this.isPending = true;
  }

  wait(): void {
    if (!this.isPending) return;
    this.#session.check("cuEventSynchronize", this.#session.functions.cuEventSynchronize(this.event));
    this.isPending = false;
  }

  /** Never throws. */
  dispose(): void {
    this.#session.functions.cuEventDestroy_v2(this.event);
    this.#session.functions.cuMemFreeHost(this.address);
  }
}
