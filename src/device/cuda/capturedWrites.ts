/**
 * Which buffers the operators of a graph write, as far as it is captured: what they leave alone, a kernel may read before its
 * predecessors end. Knows nothing of kernels.
 */
import type { DeviceBuffer, OpArguments, TensorArgument } from "../contract.ts";
import { ops, type OpName, type OpSpec } from "../ops.ts";

export class CapturedWrites {
  readonly #earlier = new Set<DeviceBuffer>();
  /** Those of the operator that is being captured. */
  readonly #own = new Set<DeviceBuffer>();

  /** Notes what an operator will write. Comes before its kernels: it may have several, of which one reads what another writes. */
  begin<Name extends OpName>(name: Name, args: OpArguments<Name>): void {
    this.#end();
    const spec: OpSpec = ops[name];
    const tensors = args as Readonly<Record<string, TensorArgument | undefined>>;
    for (const [tensor, access] of Object.entries(spec.tensors)) {
      const buffer = tensors[tensor]?.buffer;
      if (buffer !== undefined && !access.startsWith("read")) this.#own.add(buffer);
    }
  }

  /** Notes the target of a copy between operators. */
  add(buffer: DeviceBuffer): void {
    this.#earlier.add(buffer);
  }

  /** Whether an operator so far writes the buffer, the one that is being captured included. */
  has(buffer: DeviceBuffer): boolean {
    return this.#earlier.has(buffer) || this.#own.has(buffer);
  }

  /** Whether an operator before the one that is being captured writes the buffer. */
  hasEarlier(buffer: DeviceBuffer): boolean {
    return this.#earlier.has(buffer);
  }

  #end(): void {
    for (const buffer of this.#own) this.#earlier.add(buffer);
    this.#own.clear();
  }
}
