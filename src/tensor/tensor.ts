/**
 * Tensors: a shape and a dtype over device memory with shared ownership. It knows nothing of gradients beyond the `variable`
 * that the tape hangs on it, nor of which backend holds the memory.
 *
 * A handle is disposed once; the memory goes when its last handle does. `alias()` makes another handle.
 */
import {
  decodeValues,
  DisposedError,
  dtypeBytes,
  encodeValues,
  formatShape,
  invariant,
  numElements,
  ShapeError,
  viewAs,
} from "../base/index.ts";
import type { Dtype, NumericArray, Shape } from "../base/index.ts";
import type { Device, DeviceBuffer, TensorArgument } from "../device/index.ts";

/** Device memory with a count of handles; `free` runs when the last one goes. */
export class Storage {
  readonly buffer: DeviceBuffer;
  readonly #free: (buffer: DeviceBuffer) => void;
  #numHandles = 1;

  constructor(buffer: DeviceBuffer, free: (buffer: DeviceBuffer) => void = (owned) => owned.dispose()) {
    this.buffer = buffer;
    this.#free = free;
  }

  get isShared(): boolean {
    return this.#numHandles > 1;
  }

  retain(): this {
    invariant(this.#numHandles > 0, "storage retained after it was freed");
    this.#numHandles++;
    return this;
  }

  release(): void {
    this.#numHandles--;
    if (this.#numHandles === 0) this.#free(this.buffer);
  }
}

/** What the tape keeps for a value that gradients flow to: the sum of the gradients seen so far. */
export class Variable implements Disposable {
  gradient: Tensor | undefined;

  dispose(): void {
    this.gradient?.dispose();
    this.gradient = undefined;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** How to make a value again from what is kept anyway, instead of keeping it (see tape.ts, `Saved`). */
export interface Recipe {
  /** A fresh tensor with the same values. */
  compute(): Tensor;
  retain(): void;
  release(): void;
}

export interface TensorOptions {
  shape: Shape;
  dtype: Dtype;
  byteOffset?: number;
}

/** Values on their way to the host. */
export interface PendingValues {
  readonly isReady: boolean;
  /** Waits for them. */
  wait(): Float64Array;
}

export class Tensor implements TensorArgument, Disposable {
  readonly storage: Storage;
  readonly shape: Shape;
  readonly dtype: Dtype;
  readonly byteOffset: number;
  /** Set where gradients flow to this value. */
  variable: Variable | undefined;
  /** Set where keeping this value for the backward pass would be a waste. */
  recipe: Recipe | undefined;
  #isDisposed = false;

  constructor(storage: Storage, { shape, dtype, byteOffset = 0 }: TensorOptions) {
    this.storage = storage;
    this.shape = shape;
    this.dtype = dtype;
    this.byteOffset = byteOffset;
    invariant(
      byteOffset + this.byteLength <= storage.buffer.byteLength,
      `tensor of shape ${formatShape(shape)} reaches outside its buffer`,
    );
  }

  /** The memory. Throws DisposedError. */
  get buffer(): DeviceBuffer {
    if (this.#isDisposed) {
      throw new DisposedError(
        "tensor",
        `expected a live tensor, got one of shape ${formatShape(this.shape)} that was disposed`,
        {
          hint: "a scope frees its temporaries; return the tensor from the scope to keep it",
        },
      );
    }
    return this.storage.buffer;
  }

  get device(): Device {
    return this.buffer.device;
  }

  get numElements(): number {
    return numElements(this.shape);
  }

  get byteLength(): number {
    return this.numElements * dtypeBytes(this.dtype);
  }

  get isDisposed(): boolean {
    return this.#isDisposed;
  }

  /** Length of the last axis. */
  get width(): number {
    return this.shape.at(-1) ?? 1;
  }

  /** Product of all axes but the last. */
  get numRows(): number {
    return numElements(this.shape.slice(0, -1));
  }

  /** Another handle on the same values and variable. */
  alias(): Tensor {
    return this.reshape(this.shape);
  }

  /** A handle on the same values and variable with another shape. Throws ShapeError. */
  reshape(shape: Shape): Tensor {
    if (numElements(shape) !== this.numElements) {
      throw new ShapeError(
        "reshape",
        `expected ${this.numElements} elements, got shape ${formatShape(shape)} for ${formatShape(this.shape)}`,
      );
    }
    const other = new Tensor(this.#retained(), { shape, dtype: this.dtype, byteOffset: this.byteOffset });
    other.variable = this.variable;
    return other;
  }

  /** A handle on rows `begin` .. `end` of the first axis, outside the tape. Throws ShapeError. */
  rows(begin: number, end: number): Tensor {
    const length = this.shape[0] ?? 0;
    if (begin < 0 || end > length || begin > end) {
      throw new ShapeError("rows", `expected a range within ${length} rows, got ${begin} to ${end}`);
    }
    const rowBytes = length === 0 ? 0 : this.byteLength / length;
    return new Tensor(this.#retained(), {
      shape: [end - begin, ...this.shape.slice(1)],
      dtype: this.dtype,
      byteOffset: this.byteOffset + begin * rowBytes,
    });
  }

  #retained(): Storage {
    // Reading `buffer` refuses disposed handles.
    return this.buffer === this.storage.buffer ? this.storage.retain() : this.storage;
  }

  /** Where `element` of this tensor lies, for operators that take row strides. */
  at(element: number): TensorArgument {
    return {
      buffer: this.buffer,
      byteOffset: this.byteOffset + element * dtypeBytes(this.dtype),
      dtype: this.dtype,
    };
  }

  /** Waits, then gives the values as float64 numbers. */
  toArray(): Float64Array {
    return decodeValues(this.dtype, this.toBytes());
  }

  /** Waits, then gives the values as the dtype's own typed array (bf16 as bit patterns). */
  toTypedArray(): NumericArray {
    return viewAs(this.dtype, this.toBytes());
  }

  /** Waits, then gives the bytes. */
  toBytes(): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(this.byteLength);
    this.device.download(this.buffer, this.byteOffset, bytes);
    return bytes;
  }

  /** Waits, then gives the only value. Throws ShapeError. */
  item(): number {
    if (this.numElements !== 1)
      throw new ShapeError("item", `expected one element, got shape ${formatShape(this.shape)}`);
    return this.toArray()[0];
  }

  /** Queues a copy of the values to the host; `wait` gives them later. */
  readback(): PendingValues {
    const pending = this.device.readback(this.buffer, this.byteOffset, this.byteLength);
    return {
      get isReady() {
        return pending.isReady;
      },
      wait: () => decodeValues(this.dtype, pending.wait()),
    };
  }

  /** Queues a copy of `values`, rounded to the dtype. Throws ShapeError. */
  set(values: ArrayLike<number>): this {
    return this.setBytes(encodeValues(this.dtype, values));
  }

  /** Queues a copy of raw bytes. Throws ShapeError. */
  setBytes(bytes: Uint8Array): this {
    if (bytes.byteLength !== this.byteLength) {
      throw new ShapeError(
        "tensor",
        `expected ${this.byteLength} bytes for shape ${formatShape(this.shape)} ${this.dtype}, got ${bytes.byteLength}`,
      );
    }
    this.device.upload(this.buffer, this.byteOffset, bytes);
    return this;
  }

  dispose(): void {
    if (this.#isDisposed) return;
    this.#isDisposed = true;
    this.recipe?.release();
    this.storage.release();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
