/** Buffers of the reference backend: plain ArrayBuffers, and typed reading and writing of operands in float64. */
import { decodeValues, DisposedError, dtypeBytes, encodeValues, invariant } from "../../base/index.ts";
import type { Device, DeviceBuffer, TensorArgument } from "../contract.ts";

export class ReferenceBuffer implements DeviceBuffer {
  readonly device: Device;
  readonly byteLength: number;
  readonly #bytes: Uint8Array<ArrayBuffer>;
  readonly #onDispose: (byteLength: number) => void;
  #isDisposed = false;

  constructor(device: Device, byteLength: number, onDispose: (byteLength: number) => void) {
    this.device = device;
    this.byteLength = byteLength;
    this.#bytes = new Uint8Array(byteLength);
    this.#onDispose = onDispose;
  }

  get isDisposed(): boolean {
    return this.#isDisposed;
  }

  /** The memory. Throws DisposedError. */
  get bytes(): Uint8Array<ArrayBuffer> {
    if (this.#isDisposed) {
      throw new DisposedError(
        "reference",
        `expected a live buffer, got one of ${this.byteLength} bytes that was disposed`,
      );
    }
    return this.#bytes;
  }

  dispose(): void {
    if (this.#isDisposed) return;
    this.#isDisposed = true;
    this.#onDispose(this.byteLength);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

export function bytesOf(buffer: DeviceBuffer): Uint8Array<ArrayBuffer> {
  invariant(buffer instanceof ReferenceBuffer, "a buffer of the reference backend");
  return buffer.bytes;
}

function region({ buffer, byteOffset, dtype }: TensorArgument, count: number): Uint8Array {
  const end = byteOffset + count * dtypeBytes(dtype);
  invariant(end <= buffer.byteLength, `operand of ${count} ${dtype} within its buffer`);
  return bytesOf(buffer).subarray(byteOffset, end);
}

/** The first `count` values of an operand, as float64 numbers; a copy. */
export function read(tensor: TensorArgument, count: number): Float64Array {
  return decodeValues(tensor.dtype, region(tensor, count));
}

/** Stores `values`, each rounded once to the operand's dtype. */
export function write(tensor: TensorArgument, values: ArrayLike<number>): void {
  region(tensor, values.length).set(encodeValues(tensor.dtype, values));
}

/** Stores rows of `width` values that lie `rowStride` apart in both; what is between the rows stays as it is. */
export function writeRows(
  { buffer, byteOffset, dtype }: TensorArgument,
  values: Float64Array,
  { numRows, width, rowStride }: { numRows: number; width: number; rowStride: number },
): void {
  for (let row = 0; row < numRows; row++) {
    const start = row * rowStride;
    write(
      { buffer, dtype, byteOffset: byteOffset + start * dtypeBytes(dtype) },
      values.subarray(start, start + width),
    );
  }
}

/** Values up to the end of the last of `numRows` rows. */
export function extent(numRows: number, rowStride: number, width: number): number {
  return numRows === 0 ? 0 : (numRows - 1) * rowStride + width;
}
