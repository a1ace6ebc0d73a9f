/**
 * A context is what a computation runs in: the device, the tape when gradients are wanted, and the scopes that free
 * temporaries. It is passed explicitly; there is no current device and no current tape.
 */
import { dtypeBytes, invariant, numElements } from "../base/index.ts";
import type { Dtype, Shape } from "../base/index.ts";
import type { Device, DeviceBuffer, Tuning } from "../device/index.ts";
import type { Recorder } from "./saved.ts";
import { Storage, Tensor } from "./tensor.ts";

/** Memory of a captured graph: freed temporaries are reused inside the graph, and given back when the graph goes. */
class GraphMemory {
  readonly #owned: DeviceBuffer[] = [];
  readonly #free = new Map<number, DeviceBuffer[]>();

  storage(device: Device, byteLength: number): Storage {
    const buffer = this.#free.get(byteLength)?.pop() ?? this.#allocate(device, byteLength);
    return new Storage(buffer, (freed) => {
      const list = this.#free.get(byteLength);
      if (list === undefined) this.#free.set(byteLength, [freed]);
      else list.push(freed);
    });
  }

  #allocate(device: Device, byteLength: number): DeviceBuffer {
    const buffer = device.allocate(byteLength);
    this.#owned.push(buffer);
    return buffer;
  }

  dispose(): void {
    for (const buffer of this.#owned) buffer.dispose();
  }
}

/** A captured computation: one call runs it again on the memory it was captured on. */
export interface CapturedGraph extends Disposable {
  replay(): void;
  dispose(): void;
}

export class Context {
  readonly device: Device;
  #tape: Recorder | undefined;
  readonly #scopes: Set<Tensor>[] = [];
  #graphMemory: GraphMemory | undefined;

  constructor(device: Device) {
    this.device = device;
  }

  /** The tape that operators record on; undefined where no gradient is wanted. */
  get tape(): Recorder | undefined {
    return this.#tape;
  }

  /** Runs `body` recording on `tape`, or on none. */
  withTape<Result>(tape: Recorder | undefined, body: () => Result): Result {
    const previous = this.#tape;
    this.#tape = tape;
    try {
      return body();
    } finally {
      this.#tape = previous;
    }
  }

  /** Runs `body` with the device timing other sizes of its operators than by itself, where it times any. */
  withTuning<Result>(tuning: Tuning, body: () => Result): Result {
    const { device } = this;
    return device.withTuning === undefined ? body() : device.withTuning(tuning, body);
  }

  /** An uninitialised tensor, owned by the innermost scope. Throws OutOfMemoryError. */
  empty(shape: Shape, dtype: Dtype): Tensor {
    const byteLength = numElements(shape) * dtypeBytes(dtype);
    const storage =
      this.#graphMemory === undefined
        ? new Storage(this.device.allocate(byteLength))
        : this.#graphMemory.storage(this.device, byteLength);
    return this.adopt(new Tensor(storage, { shape, dtype }));
  }

  /** A tensor of one value. */
  full(shape: Shape, dtype: Dtype, value: number): Tensor {
    const y = this.empty(shape, dtype);
    this.device.run("fill", { y, numElements: y.numElements, value });
    return y;
  }

  /** A tensor holding `values`, rounded to `dtype`. */
  tensor(values: ArrayLike<number>, shape: Shape, dtype: Dtype): Tensor {
    return this.empty(shape, dtype).set(values);
  }

  /** Lets the innermost scope own `tensor`. */
  adopt(tensor: Tensor): Tensor {
    this.#scopes.at(-1)?.add(tensor);
    return tensor;
  }

  /**
   * Runs `body`, then frees the tensors made in it, but for those it gives back (alone, or in arrays and plain records):
   * they go to the scope outside.
   */
  scope<Result>(body: () => Result): Result {
    const owned = new Set<Tensor>();
    this.#scopes.push(owned);
    try {
      const result = body();
      for (const kept of tensorsIn(result)) if (owned.delete(kept)) this.#scopes.at(-2)?.add(kept);
      return result;
    } finally {
      invariant(this.#scopes.pop() === owned, "scopes closed out of order");
      for (const tensor of owned) tensor.dispose();
    }
  }

  /**
   * Records what `body` queues, without running it, as a graph that one call replays. Temporaries of the body live as long
   * as the graph; tensors it gives back are the graph's outputs and go with it too.
   */
  capture<Result>(body: () => Result): { graph: CapturedGraph; result: Result } {
    invariant(this.#graphMemory === undefined, "capture inside a capture");
    const memory = new GraphMemory();
    this.#graphMemory = memory;
    const results: Result[] = [];
    try {
      const inner = this.device.capture(() => {
        results.push(this.scope(body));
      });
      invariant(results.length === 1, "capture did not run its body once");
      const dispose = (): void => {
        inner.dispose();
        memory.dispose();
      };
      const graph: CapturedGraph = { replay: () => inner.replay(), dispose, [Symbol.dispose]: dispose };
      return { graph, result: results[0] };
    } catch (error) {
      memory.dispose();
      throw error;
    } finally {
      this.#graphMemory = undefined;
    }
  }
}

function* tensorsIn(value: unknown): Generator<Tensor> {
  if (value instanceof Tensor) yield value;
  else if (Array.isArray(value)) for (const entry of value) yield* tensorsIn(entry);
  else if (typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype) {
    for (const entry of Object.values(value)) yield* tensorsIn(entry);
  }
}
