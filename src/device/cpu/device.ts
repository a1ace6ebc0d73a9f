/**
 * The CPU backend: buffers in native memory, operators as commands of the compiled kernels, graphs as stored programs replayed by one
 * native call. Calls return when the work is done, so nothing is ever under way.
 */
import { cpus, totalmem } from "node:os";
import {
  DeviceError,
  DisposedError,
  invariant,
  type NautilusError,
  OutOfMemoryError,
  UnsupportedOpError,
  type Dtype,
  type FileRange,
} from "../../base/index.ts";
import type {
  BufferRange,
  Device,
  DeviceBuffer,
  DeviceGraph,
  MemoryStatistics,
  OpArguments,
  Readback,
  TensorArgument,
} from "../contract.ts";
import { viewMemory } from "../ffi.ts";
import type { OpName } from "../ops.ts";
import { MemoryPool, PooledBuffer, type Block } from "../pool.ts";
import { CommandWriter, largestCommandBytes, opIndex, type PackedArguments } from "./commands.ts";
import { MappedBuffer } from "./mappedBuffer.ts";
import type { NativeKernels } from "./native.ts";
import { probeArguments, probeBytes } from "./support.ts";

/** The statuses of common.h that kernels give. */
const status = { unsupported: 1, badArgument: 2, outOfMemory: 3, missing: 4 } as const;

export class CpuDevice implements Device {
  readonly kind = "cpu";
  readonly description: string;
  readonly numThreads: number;
  readonly kernels: NativeKernels;
  readonly #pool: MemoryPool;
  /** Apart, so that asking for support leaves the statistics alone. */
  readonly #probePool: MemoryPool;
  readonly #programAddress: number;
  readonly #writer: CommandWriter;
  #recording: CommandWriter | undefined;
  readonly #supported = new Map<string, boolean>();
  readonly #addressOf = (tensor: TensorArgument, isWritten: boolean): number => {
    if (isWritten) this.#assertWritable(tensor.buffer);
    return this.#blockOf(tensor.buffer, tensor.byteOffset, 0).address + tensor.byteOffset;
  };
  #mappedBytes = 0;
  #isDisposed = false;

  constructor(kernels: NativeKernels, numThreads: number) {
    this.kernels = kernels;
    this.numThreads = numThreads;
    const model = cpus()[0]?.model.trim() ?? "CPU";
    this.description = `${model}, ${numThreads} ${numThreads === 1 ? "thread" : "threads"}, ${kernels.level}`;
    const source = {
      allocate: (byteLength: number) => kernels.allocate(byteLength),
      free: (address: number) => void kernels.free(address),
    };
    this.#pool = new MemoryPool("cpu", source, systemMemoryBytes());
    this.#probePool = new MemoryPool("cpu", source);
    this.#programAddress = kernels.allocate(largestCommandBytes);
    this.#writer = new CommandWriter(viewMemory(this.#programAddress, largestCommandBytes));
  }

  allocate(byteLength: number): DeviceBuffer {
    this.#assertOpen();
    return new PooledBuffer(this, this.#pool, byteLength);
  }

  run<Name extends OpName>(name: Name, args: OpArguments<Name>): void {
    this.#assertOpen();
    if (this.#recording !== undefined) {
      this.#recording.writeOp(name, args, this.#addressOf);
      this.#assertRecordable(name, args);
      return;
    }
    this.#writer.clear();
    this.#writer.writeOp(name, args, this.#addressOf);
    const result = this.kernels.execute(this.#programAddress, 1, this.numThreads);
    if (result !== 0) throw failure(name, args, result);
  }

  supports(name: OpName, dtypes: Readonly<Partial<Record<string, Dtype>>>): boolean {
    this.#assertOpen();
    const key = `${name} ${JSON.stringify(dtypes)}`;
    let answer = this.#supported.get(key);
    if (answer === undefined) {
      answer = this.kernels.hasOp(opIndex(name)) !== 0 && this.#probe(name, dtypes) !== status.unsupported;
      this.#supported.set(key, answer);
    }
    return answer;
  }

  upload(target: DeviceBuffer, byteOffset: number, bytes: Uint8Array): void {
    this.#assertNotRecording("an upload");
    this.#assertWritable(target);
    this.#bytesOf(target, byteOffset, bytes.byteLength).set(bytes);
  }

  mapFile(range: FileRange): DeviceBuffer | undefined {
    this.#assertOpen();
    const onUnmap = (byteLength: number): void => {
      this.#mappedBytes -= byteLength;
    };
    const buffer = MappedBuffer.open(this, this.kernels, { range, onUnmap });
    if (buffer !== undefined) this.#mappedBytes += buffer.byteLength;
    return buffer;
  }

  fetchMapped(parts: readonly BufferRange[]): void {
    this.#assertOpen();
    const ranges = parts.flatMap(({ buffer, byteOffset, byteLength }) => {
      const { address } = this.#blockOf(buffer, byteOffset, byteLength);
      return buffer instanceof MappedBuffer ? [BigInt(address + byteOffset), BigInt(byteLength)] : [];
    });
    if (ranges.length > 0) this.kernels.fetch(new BigInt64Array(ranges), ranges.length / 2);
  }

  download(source: DeviceBuffer, byteOffset: number, into: Uint8Array): void {
    this.#assertNotRecording("a download");
    into.set(this.#bytesOf(source, byteOffset, into.byteLength));
  }

  readback(source: DeviceBuffer, byteOffset: number, byteLength: number): Readback {
    this.#assertNotRecording("a readback");
    const bytes = this.#bytesOf(source, byteOffset, byteLength).slice();
    return { isReady: true, wait: () => bytes };
  }

  copy(
    source: DeviceBuffer,
    sourceOffset: number,
    target: DeviceBuffer,
    targetOffset: number,
    byteLength: number,
  ): void {
    this.#assertOpen();
    const from = this.#blockOf(source, sourceOffset, byteLength).address + sourceOffset;
    this.#assertWritable(target);
    const to = this.#blockOf(target, targetOffset, byteLength).address + targetOffset;
    if (this.#recording !== undefined) {
      this.#recording.writeCopy(to, from, byteLength);
      return;
    }
    this.#writer.clear();
    this.#writer.writeCopy(to, from, byteLength);
    this.kernels.execute(this.#programAddress, 1, this.numThreads);
  }

  synchronize(): void {
    this.#assertOpen();
  }

  capture(record: () => void): DeviceGraph {
    this.#assertNotRecording("a second capture");
    const recording = new CommandWriter();
    this.#pool.beginRecording();
    this.#recording = recording;
    let isComplete = false;
    let held: Block[] = [];
    try {
      record();
      isComplete = true;
    } finally {
      this.#recording = undefined;
      held = this.#pool.endRecording();
      if (!isComplete) this.#pool.giveBack(held);
    }
    return this.#makeGraph(recording, held);
  }

  memory(): MemoryStatistics {
    this.#assertOpen();
    return {
      ...this.#pool.statistics(),
      mappedBytes: this.#mappedBytes,
      totalBytes: systemMemoryBytes(),
      freeBytes: process.availableMemory(),
    };
  }

  resetPeakMemory(): void {
    this.#pool.resetPeak();
  }

  trimMemory(): void {
    this.#pool.trim();
  }

  /** Frees cached memory; buffers that are still in use keep theirs until they are disposed, and can be used no more. */
  dispose(): void {
    if (this.#isDisposed) return;
    this.#isDisposed = true;
    this.#pool.close();
    this.#probePool.close();
    this.kernels.free(this.#programAddress);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #makeGraph(recording: CommandWriter, held: readonly Block[]): DeviceGraph {
    const { bytes, names } = recording;
    const program = this.kernels.allocate(Math.max(bytes.byteLength, 8));
    new Uint8Array(viewMemory(program, Math.max(bytes.byteLength, 8))).set(bytes);
    let isDisposed = false;
    const dispose = (): void => {
      if (isDisposed) return;
      isDisposed = true;
      this.kernels.free(program);
      this.#pool.giveBack(held);
    };
    return {
      replay: () => {
        this.#assertNotRecording("a replay");
        if (isDisposed) throw new DisposedError("cpu", "expected a graph in use, got one that was disposed");
        const result = this.kernels.execute(program, names.length, this.numThreads);
        if (result !== 0) throw failure(names[Math.floor(result / 256)], {}, result % 256);
      },
      dispose,
      [Symbol.dispose]: dispose,
    };
  }

  #blockOf(buffer: DeviceBuffer, byteOffset: number, byteLength: number): Block {
    invariant(
      (buffer instanceof PooledBuffer || buffer instanceof MappedBuffer) && buffer.device === this,
      "a buffer of another device",
    );
    const { block } = buffer;
    if (byteOffset < 0 || byteOffset + byteLength > buffer.byteLength) {
      const range = `${byteOffset} to ${byteOffset + byteLength}`;
      invariant(false, `bytes ${range} of a buffer of ${buffer.byteLength}`);
    }
    return block;
  }

  /** The system would end the process at the first byte. */
  #assertWritable(buffer: DeviceBuffer): void {
    if (!(buffer instanceof MappedBuffer)) return;
    throw new DeviceError("cpu", "expected a buffer that can be written, got one that shows a file", {
      hint: "open the model without mapping it",
    });
  }

  #bytesOf(buffer: DeviceBuffer, byteOffset: number, byteLength: number): Uint8Array {
    const block = this.#blockOf(buffer, byteOffset, byteLength);
    block.view ??= viewMemory(block.address, block.capacity);
    return new Uint8Array(block.view, byteOffset, byteLength);
  }

  #assertOpen(): void {
    if (this.#isDisposed) {
      throw new DisposedError("cpu", "expected a device in use, got one that was disposed");
    }
  }

  #assertNotRecording(what: string): void {
    this.#assertOpen();
    invariant(this.#recording === undefined, `${what} inside of a capture`);
  }

  /** A recording runs later: what cannot run must be told now. */
  #assertRecordable<Name extends OpName>(name: Name, args: OpArguments<Name>): void {
    if (this.supports(name, dtypesOf(args))) return;
    throw failure(name, args, status.unsupported);
  }

  #probe(name: OpName, dtypes: Readonly<Partial<Record<string, Dtype>>>): number {
    using zeros = new PooledBuffer(this, this.#probePool, probeBytes);
    this.#bytesOf(zeros, 0, probeBytes).fill(0);
    this.#writer.clear();
    this.#writer.writeOp(name, probeArguments(name, dtypes, zeros), this.#addressOf);
    return this.kernels.execute(this.#programAddress, 1, this.numThreads) % 256;
  }
}

/** The error for a status that a kernel gave. */
function failure(name: string, args: PackedArguments, result: number): NautilusError {
  const dtypes = Object.entries(dtypesOf(args)).map(([tensor, dtype]) => `${tensor} ${dtype}`);
  const described = dtypes.length === 0 ? name : `${name} (${dtypes.join(", ")})`;
  switch (result) {
    case status.unsupported:
    case status.missing:
      return new UnsupportedOpError("cpu", `expected an operator with a CPU kernel, got ${described}`, {
        hint: "the reference backend has all of them",
      });
    case status.badArgument:
      return new DeviceError("cpu", `expected arguments that fit together, got a refusal of ${described}`);
    case status.outOfMemory:
      return new OutOfMemoryError("cpu", `expected room for the working memory of ${described}, got none`);
    default:
      return new DeviceError("cpu", `expected ${described} to run, got status ${result}`);
  }
}

function dtypesOf(args: PackedArguments): Record<string, Dtype> {
  const found: Record<string, Dtype> = {};
  for (const [name, value] of Object.entries(args)) {
    if (typeof value === "object") found[name] = value.dtype;
  }
  return found;
}

/** What this process may use: the limit of its control group, or the machine's memory. */
function systemMemoryBytes(): number {
  const limit = process.constrainedMemory();
  return limit > 0 ? Math.min(limit, totalmem()) : totalmem();
}
