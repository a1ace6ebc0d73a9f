/**
 * The launch context: loads kernels on first use, packs their parameters into one buffer and queues them.
 * The driver copies the parameters during the call, so one buffer serves all launches, captured ones included.
 * Source: cuLaunchKernel (CU_LAUNCH_PARAM_BUFFER_POINTER) and CUlaunchConfig of cuda.h.
 */
import { availableParallelism } from "node:os";
import { DeviceError, invariant, note } from "../../base/index.ts";
import type { TensorArgument, Tuning } from "../contract.ts";
import type { CudaBlock } from "./buffer.ts";
import type { CapturedWrites } from "./capturedWrites.ts";
import { architectureFor, compileModule, compileModules, isCompiled, modulesOf } from "./compiler.ts";
import {
  declaredKernels,
  type Extent,
  type KernelParameter,
  type KernelReference,
  type LaunchContext,
  type LaunchShape,
  type TiledMatrix,
} from "./launcher.ts";
import type { CudaMemory } from "./memory.ts";
import { NativeWords } from "./native.ts";
import { Nvrtc } from "./nvrtc.ts";
import type { CudaSession } from "./session.ts";
import { TileMapEncoder } from "./tileMap.ts";

const parameterBytes = 4096;
const functionDynamicSharedBytes = 8;
const attributeClusterDimension = 4;
const attributeProgrammaticSerialization = 6;
const attributeBytes = 72;

interface LoadedKernel {
  readonly handle: number;
  /** Dynamic shared memory that it is set up for. */
  sharedBytes: number;
}

function extent(value: Extent, axis: 0 | 1 | 2): number {
  if (typeof value === "number") return axis === 0 ? value : 1;
  return value[axis] ?? 1;
}

export class CudaLaunchContext implements LaunchContext {
  readonly multiprocessorCount: number;
  readonly threadsPerMultiprocessor: number;
  readonly computeCapability: number;
  readonly sharedMemoryLimit: number;
  readonly l2CacheBytes: number;
  readonly isDeterministic: boolean;
  readonly stream: number;
  /** Set while a graph is captured: the buffers that the operators captured so far write. */
  capturedWrites: CapturedWrites | undefined;
  tuning: Tuning = "repeated";
  readonly #session: CudaSession;
  readonly #memory: CudaMemory;
  readonly #parameters = new NativeWords(parameterBytes / 8);
  /** The `extra` argument of a launch: buffer pointer (1), its address, buffer size (2), where the size stands, end (0). */
  readonly #extra = new NativeWords(6);
  /** The `kernelParams` argument of a launch with one parameter: the address of the parameters. */
  readonly #single = new NativeWords(1);
  readonly #config = new NativeWords(7);
  readonly #attributes = new NativeWords((2 * attributeBytes) / 8);
  readonly #tileMaps: TileMapEncoder;
  readonly #modules = new Map<string, number>();
  readonly #kernels = new Map<KernelReference, LoadedKernel>();
  #workspace: CudaBlock | undefined;
  #isWorkspaceCaptured = false;
  /** Workspaces that graphs still use. */
  readonly #retired: CudaBlock[] = [];

  constructor(session: CudaSession, memory: CudaMemory, options: { isDeterministic: boolean }) {
    this.#session = session;
    this.#memory = memory;
    this.multiprocessorCount = session.multiprocessorCount;
    this.threadsPerMultiprocessor = session.threadsPerMultiprocessor;
    this.computeCapability = session.computeCapability;
    this.sharedMemoryLimit = session.sharedMemoryLimit;
    this.l2CacheBytes = session.l2CacheBytes;
    this.stream = session.stream;
    this.isDeterministic = options.isDeterministic;
    this.#tileMaps = new TileMapEncoder(session);
    const size = this.#extra.address + 5 * 8;
    [1, this.#parameters.address, 2, size, 0].forEach((word, index) => this.#extra.setWord(index, word));
    this.#single.setWord(0, this.#parameters.address);
  }

  launch(kernel: KernelReference, shape: LaunchShape, parameters: readonly KernelParameter[]): void {
    const { grid, block, sharedBytes = 0 } = shape;
    const gridX = extent(grid, 0);
    const gridY = extent(grid, 1);
    const gridZ = extent(grid, 2);
    if (gridX * gridY * gridZ === 0) return;
    const loaded = this.#kernels.get(kernel) ?? this.#load(kernel);
    if (sharedBytes > loaded.sharedBytes) this.#raiseSharedLimit(kernel, loaded, sharedBytes);
    this.#pack(parameters);
    // The compiler may leave a gap before a structure with an alignment of its own, which only the driver knows.
    const isStructure = parameters.length === 1 && parameters[0].kind === "bytes";
    const single = isStructure ? this.#single.address : 0;
    const extra = isStructure ? 0 : this.#extra.address;
    const { functions } = this.#session;
    if (shape.cluster !== undefined || shape.overlapsPrevious === true) {
      this.#configure(shape);
      const status = functions.cuLaunchKernelEx(this.#config.address, loaded.handle, single, extra);
      if (status !== 0) this.#session.check(`the launch of ${kernel.entry}`, status);
      return;
    }
    const status = functions.cuLaunchKernel(
      loaded.handle,
      gridX,
      gridY,
      gridZ,
      extent(block, 0),
      extent(block, 1),
      extent(block, 2),
      sharedBytes,
      this.stream,
      single,
      extra,
    );
    if (status !== 0) this.#session.check(`the launch of ${kernel.entry}`, status);
  }

  get isCapturing(): boolean {
    return this.capturedWrites !== undefined;
  }

  tileMap(matrix: TiledMatrix): Uint8Array {
    return this.#tileMaps.encode(matrix);
  }

  /** Within a graph, whose first node waits for all before it; eagerly, any kernel of the stream may still be writing. */
  isSettled({ buffer }: TensorArgument): boolean {
    return this.capturedWrites !== undefined && !this.capturedWrites.has(buffer);
  }

  wasSettled({ buffer }: TensorArgument): boolean {
    return this.capturedWrites !== undefined && !this.capturedWrites.hasEarlier(buffer);
  }

  workspace(bytes: number): number {
    if (this.#workspace === undefined || this.#workspace.byteLength < bytes) {
      const next = this.#memory.reserveOutsideCapture(bytes);
      if (this.#workspace !== undefined) {
        if (this.#isWorkspaceCaptured) this.#retired.push(this.#workspace);
        else this.#memory.unreserve(this.#workspace);
      }
      this.#workspace = next;
      this.#isWorkspaceCaptured = false;
    }
    this.#isWorkspaceCaptured ||= this.isCapturing;
    return this.#workspace.address;
  }

  memset(address: number, byte: number, bytes: number): void {
    if (bytes === 0) return;
    const status = this.#session.functions.cuMemsetD8Async(address, byte, bytes, this.stream);
    this.#session.check("cuMemsetD8Async", status);
  }

  copy(target: number, source: number, bytes: number): void {
    if (bytes === 0) return;
    const status = this.#session.functions.cuMemcpyDtoDAsync_v2(target, source, bytes, this.stream);
    this.#session.check("cuMemcpyDtoDAsync", status);
  }

  /** Compiles all declared kernels but the rare ones that are not in the cache yet, in parallel. Throws DeviceError. */
  async prepareKernels(): Promise<void> {
    const compiler = Nvrtc.open(this.#session.driver.majors);
    const architecture = architectureFor(this.computeCapability, compiler.architectures);
    const usual = declaredKernels().filter(({ isRare }) => !isRare);
    const missing = modulesOf(usual, this.computeCapability).filter(
      (module) => !isCompiled(compiler, module, architecture),
    );
    if (missing.length === 0) return;
    if (missing.length > 8)
      note(`compiling ${missing.length} GPU kernel files for ${architecture}, once per machine`);
    await compileModules(compiler, missing, { architecture, parallel: availableParallelism() });
  }

  /** Takes a function that is loaded already. */
  adopt(kernel: KernelReference, handle: number): LoadedKernel {
    const loaded = { handle, sharedBytes: 0 };
    this.#kernels.set(kernel, loaded);
    return loaded;
  }

  /** Unloads the kernels; the caller has waited for the device. Never throws. */
  dispose(): void {
    for (const module of this.#modules.values()) this.#session.functions.cuModuleUnload(module);
    this.#modules.clear();
    this.#kernels.clear();
  }

  #load(kernel: KernelReference): LoadedKernel {
    const { functions, driver } = this.#session;
    if (kernel.minimumCapability > this.computeCapability)
      throw new DeviceError("cuda", `expected a newer GPU for ${kernel.entry}, got ${this.#session.label}`);
    let module = this.#modules.get(kernel.moduleKey);
    if (module === undefined) {
      const compiler = Nvrtc.open(driver.majors);
      const architecture = architectureFor(this.computeCapability, compiler.architectures);
      const image = compileModule(compiler, kernel, architecture);
      // One zero more, because PTX is text that ends with one.
      const memory = new NativeWords(Math.ceil((image.byteLength + 1) / 8));
      memory.bytes.set(image);
      const status = functions.cuModuleLoadData(driver.out.address, memory.address);
      this.#session.check(`loading ${kernel.moduleKey}`, status);
      module = driver.out.word(0);
      this.#modules.set(kernel.moduleKey, module);
    }
    const entry = NativeWords.ofText(kernel.entry);
    const status = functions.cuModuleGetFunction(driver.out.address, module, entry.address);
    this.#session.check(`finding ${kernel.entry} in ${kernel.file}`, status);
    return this.adopt(kernel, driver.out.word(0));
  }

  #raiseSharedLimit(kernel: KernelReference, loaded: LoadedKernel, sharedBytes: number): void {
    const { functions } = this.#session;
    const status = functions.cuFuncSetAttribute(loaded.handle, functionDynamicSharedBytes, sharedBytes);
    this.#session.check(`giving ${kernel.entry} ${sharedBytes} bytes of shared memory`, status);
    loaded.sharedBytes = sharedBytes;
  }

  #pack(parameters: readonly KernelParameter[]): void {
    const words = this.#parameters;
    let offset = 0;
    for (const parameter of parameters) {
      switch (parameter.kind) {
        case "i32":
          offset = (offset + 3) & ~3;
          words.i32[offset >> 2] = parameter.value;
          offset += 4;
          break;
        case "f32":
          offset = (offset + 3) & ~3;
          words.f32[offset >> 2] = parameter.value;
          offset += 4;
          break;
        case "pointer":
        case "i64":
          offset = (offset + 7) & ~7;
          words.setWord(offset >> 3, parameter.value);
          offset += 8;
          break;
        case "f64":
          offset = (offset + 7) & ~7;
          words.f64[offset >> 3] = parameter.value;
          offset += 8;
          break;
        case "bytes": {
          const { alignment, value } = parameter;
          offset = Math.ceil(offset / alignment) * alignment;
          words.bytes.set(value, offset);
          offset += value.byteLength;
          break;
        }
      }
    }
    invariant(offset <= parameterBytes, "more than 4096 bytes of kernel parameters");
    this.#extra.setWord(5, offset);
  }

  /** Fills a CUlaunchConfig: extents, shared memory, stream, attributes of 72 bytes each. */
  #configure({ grid, block, sharedBytes = 0, cluster, overlapsPrevious }: LaunchShape): void {
    const config = this.#config;
    for (const axis of [0, 1, 2] as const) {
      config.u32[axis] = extent(grid, axis);
      config.u32[3 + axis] = extent(block, axis);
    }
    config.u32[6] = sharedBytes;
    config.setWord(4, this.stream);
    config.setWord(5, this.#attributes.address);
    const { u32 } = this.#attributes;
    let numAttributes = 0;
    if (cluster !== undefined) {
      u32[0] = attributeClusterDimension;
      for (const axis of [0, 1, 2] as const) u32[2 + axis] = extent(cluster, axis);
      numAttributes++;
    }
    if (overlapsPrevious === true) {
      const base = (numAttributes * attributeBytes) / 4;
      u32[base] = attributeProgrammaticSerialization;
      u32[base + 2] = 1;
      numAttributes++;
    }
    config.u32[12] = numAttributes;
  }
}
