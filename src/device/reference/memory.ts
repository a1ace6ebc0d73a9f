/**
 * Buffers of the reference backend (plain ArrayBuffers), and operands read and written as float64 numbers.
 *
 * `read` gives copies, so a kernel that reads all its operands before it writes allows every aliasing. A store rounds
 * once, from float64 to the operand's dtype. Offsets and counts are in elements. Knows nothing of operators.
 */
import {
  decodeValues,
  DisposedError,
  dtypeBytes,
  encodeValues,
  formatBytes,
  invariant,
  ShapeError,
} from "../../base/index.ts";
import type { Dtype } from "../../base/index.ts";
import type { Device, DeviceBuffer, TensorArgument } from "../contract.ts";

/** Fresh memory reads as NaN in every float dtype and as -1 in the integers: nobody may count on zeros. */
const freshByte = 0xff;

export class ReferenceBuffer implements DeviceBuffer {
  readonly device: Device;
  readonly byteLength: number;
  readonly #onDispose: (byteLength: number) => void;
  #bytes: Uint8Array<ArrayBuffer> | undefined;

  constructor(device: Device, byteLength: number, onDispose: (byteLength: number) => void) {
    this.device = device;
    this.byteLength = byteLength;
    this.#bytes = new Uint8Array(byteLength).fill(freshByte);
    this.#onDispose = onDispose;
  }

  get isDisposed(): boolean {
    return this.#bytes === undefined;
  }

  /** Its memory. Throws DisposedError. */
  get bytes(): Uint8Array<ArrayBuffer> {
    if (this.#bytes === undefined) {
      throw new DisposedError(
        "reference",
        `expected a buffer in use, got one of ${formatBytes(this.byteLength)} that was disposed`,
        { hint: "retain it, or let a wider scope own it, while it is still needed" },
      );
    }
    return this.#bytes;
  }

  dispose(): void {
    if (this.#bytes === undefined) return;
    this.#bytes = undefined;
    this.#onDispose(this.byteLength);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** The memory of a buffer of this backend. Throws DisposedError. */
export function bytesOf(buffer: DeviceBuffer): Uint8Array<ArrayBuffer> {
  invariant(buffer instanceof ReferenceBuffer, "a buffer of another backend was given to the reference");
  return buffer.bytes;
}

/** Throws a ShapeError whose fields hold the operand, so that the device can name it. */
function region(tensor: TensorArgument, start: number, count: number): Uint8Array<ArrayBuffer> {
  const { buffer, byteOffset, dtype } = tensor;
  const begin = byteOffset + start * dtypeBytes(dtype);
  const end = begin + count * dtypeBytes(dtype);
  if (!(count >= 0 && begin >= 0 && end <= buffer.byteLength)) {
    const mismatch = `expected ${dtype} elements ${start} to ${start + count} from byte ${byteOffset} on, got a buffer of ${buffer.byteLength} bytes`;
    throw new ShapeError("reference", mismatch, { fields: { tensor, mismatch } });
  }
  return bytesOf(buffer).subarray(begin, end);
}

/** `count` values of an operand from element `start` on: a copy. Throws ShapeError, DisposedError. */
export function read(tensor: TensorArgument, count: number, start = 0): Float64Array<ArrayBuffer> {
  const bytes = region(tensor, start, count);
  return tensor.dtype === "bf16" ? decodeBf16(bytes) : decodeValues(tensor.dtype, bytes);
}

/** Stores `values` from element `start` on, each rounded once. Throws ShapeError, DisposedError. */
export function write(tensor: TensorArgument, values: Float64Array | readonly number[], start = 0): void {
  region(tensor, start, values.length).set(encode(tensor.dtype, values));
}

/** Copies `count` elements of an operand to another place of it, bit for bit. Throws ShapeError, DisposedError. */
export function copyWithin(
  tensor: TensorArgument,
  { count, source, target }: { count: number; source: number; target: number },
): void {
  region(tensor, target, count).set(region(tensor, source, count));
}

/** What `read` would give of values after `write` to a tensor of this dtype. */
export function roundedTo(dtype: Dtype, values: Float64Array): Float64Array {
  const bytes = Uint8Array.from(encode(dtype, values));
  return dtype === "bf16" ? decodeBf16(bytes) : decodeValues(dtype, bytes);
}

/** The one value of an operand. */
export function readScalar(tensor: TensorArgument): number {
  return read(tensor, 1)[0];
}

/** Rows of `width` values whose first elements lie `stride` apart. */
export interface RowLayout {
  readonly numRows: number;
  readonly width: number;
  readonly stride: number;
}

/** The rows of an operand, closed up to (numRows, width). */
export function readRows(tensor: TensorArgument, { numRows, width, stride }: RowLayout): Float64Array {
  if (numRows === 0 || width === 0) return new Float64Array(0);
  if (stride === width) return read(tensor, numRows * width);
  const stored = read(tensor, (numRows - 1) * stride + width);
  const rows = new Float64Array(numRows * width);
  for (let row = 0; row < numRows; row++) {
    rows.set(stored.subarray(row * stride, row * stride + width), row * width);
  }
  return rows;
}

/** Stores (numRows, width) values as rows `stride` apart; what lies between the rows stays as it is. */
export function writeRows(
  tensor: TensorArgument,
  values: Float64Array,
  { numRows, width, stride }: RowLayout,
): void {
  if (stride === width) {
    write(tensor, values);
    return;
  }
  for (let row = 0; row < numRows; row++) {
    write(tensor, values.subarray(row * width, (row + 1) * width), row * stride);
  }
}

function decodeBf16(bytes: Uint8Array<ArrayBuffer>): Float64Array<ArrayBuffer> {
  const bits = new Uint16Array(bytes.slice().buffer);
  const words = new Uint32Array(bits.length);
  for (let i = 0; i < bits.length; i++) words[i] = bits[i] << 16;
  return new Float64Array(new Float32Array(words.buffer));
}

const roundedValue = new Float32Array(1);
const roundedBits = new Uint32Array(roundedValue.buffer);

/**
 * The bf16 bits of a float64 number, rounded once: the float32 between is rounded to odd, which keeps what the second
 * rounding needs (Boldo and Melquiond, "When double rounding is odd", 2005).
 */
function bf16BitsOf(value: number): number {
  roundedValue[0] = value;
  const nearest = roundedValue[0];
  let bits = roundedBits[0];
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40;
  if (nearest !== value && (bits & 1) === 0) {
    bits += Math.abs(nearest) < Math.abs(value) ? 1 : -1;
  }
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

function encode(dtype: Dtype, values: Float64Array | readonly number[]): Uint8Array {
  if (dtype !== "bf16") return encodeValues(dtype, values);
  const bits = new Uint16Array(values.length);
  for (let i = 0; i < bits.length; i++) bits[i] = bf16BitsOf(values[i]);
  return new Uint8Array(bits.buffer);
}
