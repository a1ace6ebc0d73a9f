/**
 * A problem's operands in device memory: each in a buffer of its own between guards, with poison in the guards, between rows and
 * where nothing is given. Poison is NaN in every float dtype and -1 in the integers, so that reading it shows too.
 */
import { decodeValues, dtypeBytes, encodeValues } from "../../src/base/index.ts";
import type { Device, DeviceBuffer, OpArguments, OpName, TensorArgument } from "../../src/device/index.ts";
import { operandsOf, type AnyProblem, type Operand } from "./case.ts";

const guardBytes = 256;
const poisonByte = 0xff;

/** Bytes from the start of the buffer to the first element. */
function startBytes({ shift, dtype }: Operand): number {
  return guardBytes + shift * dtypeBytes(dtype);
}

/** The parts of an operand's buffer that hold its values: rows, or all at once where they lie close. */
function parts(bytes: Uint8Array, { dtype, numRows, width, stride, shift }: Operand): Uint8Array[] {
  const size = dtypeBytes(dtype);
  const start = guardBytes + shift * size;
  if (stride === width) return [bytes.subarray(start, start + numRows * width * size)];
  return Array.from({ length: numRows }, (_, row) => {
    const begin = start + row * stride * size;
    return bytes.subarray(begin, begin + width * size);
  });
}

/** The whole buffer of an operand before the run. */
function initialBytes(operand: Operand): Uint8Array {
  const { dtype, numRows, width, stride, values } = operand;
  const numElements = numRows === 0 || width === 0 ? 0 : (numRows - 1) * stride + width;
  const bytes = new Uint8Array(startBytes(operand) + numElements * dtypeBytes(dtype) + guardBytes);
  bytes.fill(poisonByte);
  if (values === undefined || numElements === 0) return bytes;
  const contents = encodeValues(dtype, values());
  let at = 0;
  for (const part of parts(bytes, operand)) {
    part.set(contents.subarray(at, at + part.byteLength));
    at += part.byteLength;
  }
  return bytes;
}

/** The rows of an operand, closed up. */
export function rowsOf(bytes: Uint8Array, operand: Operand): Uint8Array {
  return Buffer.concat(parts(bytes, operand));
}

export function valuesOf(bytes: Uint8Array, operand: Operand): Float64Array {
  return decodeValues(operand.dtype, rowsOf(bytes, operand));
}

/** `bytes` with the operand's rows taken out: guards and gaps. */
export function surroundingsOf(bytes: Uint8Array, operand: Operand): Uint8Array {
  const kept = bytes.slice();
  for (const part of parts(kept, operand)) part.fill(0);
  return kept;
}

function isLarge({ dtype, numRows, stride }: Operand): boolean {
  return (dtype === "f32" || dtype === "bf16") && numRows * stride > 2 ** 16;
}

/** A guarded buffer whose every element is drawn from a normal distribution about one. */
function filledBuffer(device: Device, operand: Operand): DeviceBuffer {
  const { dtype, numRows, stride } = operand;
  const byteLength = startBytes(operand) + numRows * stride * dtypeBytes(dtype) + guardBytes;
  const buffer = device.allocate(byteLength);
  const y = { buffer, byteOffset: 0, dtype };
  const numElements = byteLength / dtypeBytes(dtype);
  if (device.supports("randomNormal", { y: dtype })) {
    device.run("randomNormal", { y, numElements, seed: 1, counter: 0, mean: 1, std: 0.1 });
  } else device.upload(buffer, 0, new Uint8Array(byteLength));
  return buffer;
}

/** A problem laid out on a device. */
export class Placement implements Disposable {
  readonly #device: Device;
  readonly #problem: AnyProblem;
  readonly #buffers = new Map<string, DeviceBuffer>();
  /** Buffers' contents before the run, by the tensor that gives the memory. */
  readonly initial = new Map<string, Uint8Array>();

  /**
   * With `sharing`, operands that are the same as another use its memory; else each has its own. With `filling`, large float operands are
   * filled on the device with values about one: for benchmarks, whose time does not depend on them.
   */
  constructor(
    device: Device,
    problem: AnyProblem,
    { sharing, filling = false }: { sharing: boolean; filling?: boolean },
  ) {
    this.#device = device;
    this.#problem = problem;
    for (const [name, operand] of operandsOf(problem)) {
      if (sharing && operand.sameAs !== undefined) continue;
      if (filling && isLarge(operand)) {
        this.#buffers.set(name, filledBuffer(device, operand));
        continue;
      }
      const bytes = initialBytes(operand);
      this.initial.set(name, bytes);
      this.#buffers.set(name, device.allocate(bytes.byteLength));
    }
    this.restore();
  }

  /** Puts back what was there before the run. */
  restore(): void {
    for (const [name, bytes] of this.initial) this.#device.upload(this.buffer(name), 0, bytes);
  }

  /** The tensor whose memory `name` lies in. */
  ownerOf(name: string): string {
    if (this.#buffers.has(name)) return name;
    const operand = this.#problem[name];
    return typeof operand === "object" ? (operand.sameAs ?? name) : name;
  }

  buffer(name: string): DeviceBuffer {
    const found = this.#buffers.get(this.ownerOf(name));
    if (found === undefined) throw new TypeError(`no memory for ${name}`);
    return found;
  }

  /** The arguments for `device.run`. */
  arguments<Name extends OpName>(): OpArguments<Name> {
    const args: Record<string, TensorArgument | number> = {};
    for (const [name, value] of Object.entries(this.#problem)) {
      if (value === undefined) continue;
      args[name] =
        typeof value === "number"
          ? value
          : { buffer: this.buffer(name), byteOffset: startBytes(value), dtype: value.dtype };
    }
    // The problem was typed by its operator where the case was written.
    return args as unknown as OpArguments<Name>;
  }

  /** A tensor's whole buffer as it is now. */
  contents(name: string): Uint8Array {
    const buffer = this.buffer(name);
    const bytes = new Uint8Array(buffer.byteLength);
    this.#device.download(buffer, 0, bytes);
    return bytes;
  }

  [Symbol.dispose](): void {
    for (const buffer of this.#buffers.values()) buffer.dispose();
  }
}
