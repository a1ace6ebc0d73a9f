/**
 * A block of GPU memory with one owner. Knows its address and who takes it back; nothing of the driver.
 */
import { DisposedError, formatBytes } from "../../base/index.ts";
import type { Device, DeviceBuffer } from "../contract.ts";

export interface CudaBlock {
  /** Device address; below 2^53, as virtual addresses have at most 57 bits of which user space takes 47 to 49. */
  readonly address: number;
  /** Bytes held, rounded up. */
  readonly byteLength: number;
}

export class CudaBuffer implements DeviceBuffer {
  readonly device: Device;
  readonly byteLength: number;
  readonly #block: CudaBlock;
  readonly #release: (block: CudaBlock, byteLength: number) => void;
  #isDisposed = false;

  constructor(
    device: Device,
    byteLength: number,
    memory: { block: CudaBlock; release: (block: CudaBlock, byteLength: number) => void },
  ) {
    this.device = device;
    this.byteLength = byteLength;
    this.#block = memory.block;
    this.#release = memory.release;
  }

  /** Device address of the first byte. Throws DisposedError. */
  get address(): number {
    if (this.#isDisposed)
      throw new DisposedError(
        "cuda",
        `expected a live buffer, got one of ${formatBytes(this.byteLength)} after dispose`,
      );
    return this.#block.address;
  }

  get isDisposed(): boolean {
    return this.#isDisposed;
  }

  dispose(): void {
    if (this.#isDisposed) return;
    this.#isDisposed = true;
    this.#release(this.#block, this.byteLength);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
