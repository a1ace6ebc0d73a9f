/**
 * A buffer over a range of a file: memory that the system fills page by page when it is first used, drops when it needs the room, and
 * shares among all processes that use the file. It can be read and not written.
 */
import { DisposedError, formatBytes } from "../../base/index.ts";
import type { FileRange } from "../../base/index.ts";
import type { Device, DeviceBuffer } from "../contract.ts";
import type { Block } from "../pool.ts";
import type { NativeKernels } from "./native.ts";

export class MappedBuffer implements DeviceBuffer {
  readonly device: Device;
  readonly byteLength: number;
  readonly #unmap: () => void;
  #block: Block | undefined;

  /** Owns the mapping from here on. */
  private constructor(device: Device, block: Block, unmap: () => void) {
    this.device = device;
    this.byteLength = block.byteLength;
    this.#block = block;
    this.#unmap = unmap;
  }

  /** Undefined where the range cannot be mapped. The descriptor may be closed afterwards; `onUnmap` is told when the mapping ends. */
  static open(
    device: Device,
    kernels: NativeKernels,
    { range, onUnmap }: { range: FileRange; onUnmap: (byteLength: number) => void },
  ): MappedBuffer | undefined {
    const { descriptor, position, byteLength } = range;
    const address = kernels.map(descriptor, position, byteLength);
    if (address === 0) return undefined;
    return new MappedBuffer(device, { address, capacity: byteLength, byteLength }, () => {
      kernels.unmap(address, byteLength);
      onUnmap(byteLength);
    });
  }

  get isDisposed(): boolean {
    return this.#block === undefined;
  }

  /** Its memory. Throws DisposedError. */
  get block(): Block {
    if (this.#block === undefined) {
      throw new DisposedError(
        this.device.kind,
        `expected a buffer in use, got ${formatBytes(this.byteLength)} of a file that are mapped no more`,
      );
    }
    return this.#block;
  }

  dispose(): void {
    if (this.#block === undefined) return;
    this.#block = undefined;
    this.#unmap();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
