/**
 * GPU memory: two ranges of virtual addresses (small blocks and large ones), backed by physical memory as they grow, with
 * best-fit blocks. Virtual memory management instead of one driver allocation per block, so that free neighbours join and a
 * step near the card's limit does not fail for fragments; instead of the driver's own stream-ordered pool, because that one
 * leaves allocation nodes inside graphs and costs a driver call per block.
 * Invariants: a block is reused at once, since all work is in one stream; blocks allocated while a graph is captured belong to
 * that graph until it is disposed, because every replay writes to them.
 * Source: cuMemCreate, cuMemMap and cuMemSetAccess of the driver API.
 */
import { formatBytes, OutOfMemoryError } from "../../base/index.ts";
import type { MemoryStatistics } from "../contract.ts";
import type { CudaBlock } from "./buffer.ts";
import { NativeWords } from "./native.ts";
import { RangeAllocator, type RangeBlock, type RangeSource } from "./ranges.ts";
import type { CudaSession } from "./session.ts";
import { cudaOutOfMemory, cudaSuccess } from "./status.ts";

/** Blocks below this lie in the small range, so that long-lived scraps do not break up the large one. */
const smallLimitBytes = 2 ** 20;
const smallGranule = 512;
const largeGranule = 2 ** 16;
const smallGrowthBytes = 2 ** 21;
const largeGrowthBytes = 2 ** 26;

/** Physical memory mapped at the growing end of a reserved range of addresses. */
class MappedRange implements RangeSource {
  readonly start: number;
  readonly #session: CudaSession;
  readonly #reservedBytes: number;
  readonly #granularity: number;
  readonly #growthBytes: number;
  readonly #chunks: { byteLength: number; handle: bigint }[] = [];
  readonly #properties: NativeWords;
  readonly #access: NativeWords;
  #mappedBytes = 0;

  constructor(session: CudaSession, growthBytes: number) {
    this.#session = session;
    this.#growthBytes = growthBytes;
    // CUmemAllocationProp: pinned (1), no export, location {device (1), index}; CUmemAccessDesc: the location, read-write (3).
    this.#properties = new NativeWords(4);
    this.#properties.i32.set([1, 0, 1, session.index]);
    this.#access = new NativeWords(2);
    this.#access.i32.set([1, session.index, 3]);
    const { functions, out } = session.driver;
    this.#check(
      "cuMemGetAllocationGranularity",
      functions.cuMemGetAllocationGranularity(out.address, this.#properties.address, 0),
    );
    this.#granularity = out.word(0);
    this.#reservedBytes = this.#rounded(session.totalBytes);
    const status = functions.cuMemAddressReserve(out.address, this.#reservedBytes, 0, 0, 0);
    this.#check("cuMemAddressReserve", status);
    this.start = out.word(0);
  }

  grow(byteLength: number): number {
    const least = this.#rounded(byteLength);
    const preferred = Math.max(least, this.#rounded(this.#growthBytes));
    return this.#map(preferred) || (least < preferred ? this.#map(least) : 0);
  }

  shrink(byteLength: number): number {
    let gone = 0;
    for (;;) {
      const last = this.#chunks[this.#chunks.length - 1];
      if (last === undefined || gone + last.byteLength > byteLength) return gone;
      this.#chunks.pop();
      this.#mappedBytes -= last.byteLength;
      gone += last.byteLength;
      const { functions } = this.#session;
      this.#check("cuMemUnmap", functions.cuMemUnmap(this.start + this.#mappedBytes, last.byteLength));
      this.#check("cuMemRelease", functions.cuMemRelease(last.handle));
    }
  }

  /** Frees the range itself, mapped or not; never throws. */
  dispose(): void {
    const { functions } = this.#session;
    if (this.#mappedBytes > 0) functions.cuMemUnmap(this.start, this.#mappedBytes);
    for (const { handle } of this.#chunks) functions.cuMemRelease(handle);
    functions.cuMemAddressFree(this.start, this.#reservedBytes);
  }

  #map(byteLength: number): number {
    if (this.#mappedBytes + byteLength > this.#reservedBytes) return 0;
    const { functions, out } = this.#session.driver;
    const status = functions.cuMemCreate(out.address, byteLength, this.#properties.address, 0);
    if (status === cudaOutOfMemory) return 0;
    this.#check("cuMemCreate", status);
    const handle = out.u64[0];
    const address = this.start + this.#mappedBytes;
    this.#check("cuMemMap", functions.cuMemMap(address, byteLength, 0, handle, 0));
    const access = functions.cuMemSetAccess(address, byteLength, this.#access.address, 1);
    if (access !== cudaSuccess) {
      functions.cuMemUnmap(address, byteLength);
      functions.cuMemRelease(handle);
      if (access === cudaOutOfMemory) return 0;
      this.#check("cuMemSetAccess", access);
    }
    this.#chunks.push({ byteLength, handle });
    this.#mappedBytes += byteLength;
    return byteLength;
  }

  #rounded(byteLength: number): number {
    return Math.ceil(byteLength / this.#granularity) * this.#granularity;
  }

  #check(call: string, status: number): void {
    this.#session.check(call, status);
  }
}

/** What a captured graph holds: blocks that its replays write to. */
export interface CaptureScope {
  isAlive: boolean;
  /** Blocks of the graph that no buffer uses any more. */
  readonly free: ScopedBlock[];
}

interface ScopedBlock extends CudaBlock, RangeBlock {
  readonly scope: CaptureScope | undefined;
  readonly ranges: RangeAllocator;
}

export class CudaMemory {
  readonly #session: CudaSession;
  readonly #sources: readonly [small: MappedRange, large: MappedRange];
  readonly #small: RangeAllocator;
  readonly #large: RangeAllocator;
  #scope: CaptureScope | undefined;
  #isCapturing = false;
  #liveBytes = 0;
  #peakLiveBytes = 0;
  #numLiveBuffers = 0;
  #peakReservedBytes = 0;

  constructor(session: CudaSession) {
    this.#session = session;
    const small = new MappedRange(session, smallGrowthBytes);
    const large = new MappedRange(session, largeGrowthBytes);
    this.#sources = [small, large];
    this.#small = new RangeAllocator(small.start, smallGranule, small);
    this.#large = new RangeAllocator(large.start, largeGranule, large);
  }

  /** A block for a buffer. Throws OutOfMemoryError. */
  allocate(byteLength: number): CudaBlock {
    const block = this.reserve(byteLength);
    this.#liveBytes += byteLength;
    this.#peakLiveBytes = Math.max(this.#peakLiveBytes, this.#liveBytes);
    this.#numLiveBuffers++;
    return block;
  }

  /** Takes back the block of a buffer of `byteLength` bytes. */
  readonly release = (block: CudaBlock, byteLength: number): void => {
    this.#liveBytes -= byteLength;
    this.#numLiveBuffers--;
    this.unreserve(block);
  };

  /** A block that is no buffer: scratch. Throws OutOfMemoryError. */
  reserve(byteLength: number): CudaBlock {
    const block = this.tryReserve(byteLength);
    if (block === undefined) throw this.#outOfMemory(byteLength);
    return block;
  }

  /** As `reserve`; undefined where there is no room. */
  tryReserve(byteLength: number): CudaBlock | undefined {
    const scope = this.#scope;
    const held = scope && takeFrom(scope.free, byteLength);
    if (held !== undefined) return held;
    const ranges = byteLength < smallLimitBytes ? this.#small : this.#large;
    let block = ranges.allocate(byteLength);
    if (block === undefined) {
      // Memory may only be unmapped when no queued work uses it; a capture has waited before it began.
      if (!this.#isCapturing) this.#session.synchronize();
      (ranges === this.#small ? this.#large : this.#small).trim();
      block = ranges.allocate(byteLength);
    }
    if (block === undefined) return undefined;
    this.#peakReservedBytes = Math.max(this.#peakReservedBytes, this.#reservedBytes);
    const scoped: ScopedBlock = { ...block, scope, ranges };
    return scoped;
  }

  /** As `reserve`, for a block that is not the capture's that is under way. */
  reserveOutsideCapture(byteLength: number): CudaBlock {
    return this.#outsideCapture(() => this.reserve(byteLength));
  }

  /**
   * Runs `body` with blocks that are its own until it returns, having waited for what it queued; they do not count for the peak.
   * Undefined where there is no room.
   */
  withScratch<Result>(
    byteLengths: readonly number[],
    body: (addresses: readonly number[]) => Result,
  ): Result | undefined {
    const peakReservedBytes = this.#peakReservedBytes;
    const blocks: CudaBlock[] = [];
    try {
      for (const byteLength of byteLengths) {
        const block = this.#outsideCapture(() => this.tryReserve(byteLength));
        if (block === undefined) return undefined;
        blocks.push(block);
      }
      return body(blocks.map((block) => block.address));
    } finally {
      for (const block of blocks) this.unreserve(block);
      this.trim();
      this.#peakReservedBytes = Math.max(peakReservedBytes, this.#reservedBytes);
    }
  }

  #outsideCapture<Result>(body: () => Result): Result {
    const scope = this.#scope;
    this.#scope = undefined;
    try {
      return body();
    } finally {
      this.#scope = scope;
    }
  }

  unreserve(block: CudaBlock): void {
    const scoped = block as ScopedBlock;
    if (scoped.scope?.isAlive === true) scoped.scope.free.push(scoped);
    else scoped.ranges.free(scoped);
  }

  /** From here to `endCapture`, new blocks belong to a graph. */
  beginCapture(): CaptureScope {
    this.#isCapturing = true;
    this.#scope = { isAlive: true, free: [] };
    return this.#scope;
  }

  endCapture(): void {
    this.#isCapturing = false;
    this.#scope = undefined;
  }

  /** Ends a graph's hold on its blocks. */
  releaseScope(scope: CaptureScope): void {
    scope.isAlive = false;
    for (const block of scope.free.splice(0)) block.ranges.free(block);
  }

  statistics(): MemoryStatistics {
    const { functions, out } = this.#session.driver;
    this.#session.check("cuMemGetInfo", functions.cuMemGetInfo_v2(out.address, out.address + 8));
    return {
      liveBytes: this.#liveBytes,
      peakLiveBytes: this.#peakLiveBytes,
      numLiveBuffers: this.#numLiveBuffers,
      reservedBytes: this.#reservedBytes,
      peakReservedBytes: this.#peakReservedBytes,
      freeBytes: out.word(0),
      totalBytes: out.word(1),
    };
  }

  resetPeak(): void {
    this.#peakLiveBytes = this.#liveBytes;
    this.#peakReservedBytes = this.#reservedBytes;
  }

  /** Gives the free ends of both ranges back; the caller has waited for the device. */
  trim(): void {
    this.#small.trim();
    this.#large.trim();
  }

  dispose(): void {
    for (const source of this.#sources) source.dispose();
  }

  get #reservedBytes(): number {
    return this.#small.reservedBytes + this.#large.reservedBytes;
  }

  #outOfMemory(byteLength: number): OutOfMemoryError {
    const { liveBytes, reservedBytes, freeBytes = 0, totalBytes = 0 } = this.statistics();
    const others = totalBytes - freeBytes - reservedBytes;
    const hint =
      others > totalBytes / 4
        ? `other processes hold ${formatBytes(others)} of the GPU; end them ('nvidia-smi') or choose another GPU`
        : "lower the micro-batch or the sequence length, recompute more activations, or keep the optimizer's states in bf16";
    return new OutOfMemoryError(
      "cuda",
      `expected room for ${formatBytes(byteLength)} on ${this.#session.label}, got ${formatBytes(freeBytes)} free of ` +
        `${formatBytes(totalBytes)} with ${formatBytes(liveBytes)} in use here`,
      { hint, fields: { byteLength, liveBytes, reservedBytes, freeBytes, totalBytes } },
    );
  }
}

/** The smallest block of at least `byteLength`, when little of it would be wasted. */
function takeFrom(blocks: ScopedBlock[], byteLength: number): ScopedBlock | undefined {
  let best = -1;
  let bestLength = Math.max(byteLength * 1.25, byteLength + smallGranule);
  for (let index = 0; index < blocks.length; index++) {
    const length = blocks[index].byteLength;
    if (length < byteLength || length >= bestLength) continue;
    best = index;
    bestLength = length;
  }
  return best < 0 ? undefined : blocks.splice(best, 1)[0];
}
