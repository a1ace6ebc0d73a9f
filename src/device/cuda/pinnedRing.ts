/**
 * Blocks of host memory that are filled by others and copied to the GPU, in whatever order, again and again. They are ordinary memory,
 * in huge pages where the system has them, and pinned when they are first copied from: whoever fills a block first brings its pages, and
 * only as many are pinned as are needed at once. The order of the compute stream holds.
 */
import { eventWithoutTiming, type CudaSession } from "./session.ts";
import { cudaSuccess } from "./status.ts";
import type { SystemLibrary } from "./systemLibrary.ts";

export const hugePageBytes = 2 ** 21;
/** The largest page of common systems: no two blocks share one. */
const largestPageBytes = 2 ** 16;
/** MADV_HUGEPAGE. */
export const adviseHugePages = 14;

interface RingBlock {
  readonly address: number;
  /** Says when the last copy out of the block has ended; 0 before it is pinned. */
  event: number;
}

export class PinnedRing {
  readonly #session: CudaSession;
  readonly #library: SystemLibrary;
  readonly #blockBytes: number;
  readonly #memory: number;
  readonly #blocks: readonly RingBlock[];
  readonly #free: number[] = [];
  /** In the order of their copies. */
  readonly #copying: number[] = [];
  #numUsed = 0;

  private constructor(
    session: CudaSession,
    library: SystemLibrary,
    { memory, numBlocks, blockBytes }: { memory: number; numBlocks: number; blockBytes: number },
  ) {
    this.#session = session;
    this.#library = library;
    this.#blockBytes = blockBytes;
    this.#memory = memory;
    this.#blocks = Array.from({ length: numBlocks }, (_, i) => ({
      address: memory + i * blockBytes,
      event: 0,
    }));
  }

  /** Undefined where there is no memory for it, or none can be pinned. `blockBytes` may be rounded up. */
  static open(
    session: CudaSession,
    library: SystemLibrary,
    { numBlocks, blockBytes }: { numBlocks: number; blockBytes: number },
  ): PinnedRing | undefined {
    const roundedBytes = Math.ceil(blockBytes / largestPageBytes) * largestPageBytes;
    const byteLength = Math.ceil((numBlocks * roundedBytes) / hugePageBytes) * hugePageBytes;
    const memory = library.aligned_alloc(hugePageBytes, byteLength);
    if (memory === 0) return undefined;
    // Systems without huge pages refuse; then these are ordinary ones.
    library.madvise(memory, byteLength, adviseHugePages);
    const ring = new PinnedRing(session, library, { memory, numBlocks, blockBytes: roundedBytes });
    if (ring.#pin(ring.#blocks[0])) return ring;
    ring.dispose();
    return undefined;
  }

  addressOf(block: number): number {
    return this.#blocks[block].address;
  }

  /**
   * The number of a block that nothing uses: to be copied or given back. Where all are used, undefined, or with `waits` the block of the
   * oldest copy under way once it has ended.
   */
  take({ waits }: { waits: boolean }): number | undefined {
    while (this.#copying.length > 0 && this.#session.isEventDone(this.#blocks[this.#copying[0]].event))
      this.#free.push(...this.#copying.splice(0, 1));
    const block = this.#free.pop() ?? (this.#numUsed < this.#blocks.length ? this.#numUsed++ : undefined);
    if (block !== undefined || !waits) return block;
    const oldest = this.#copying.shift();
    if (oldest === undefined) return undefined;
    const { event } = this.#blocks[oldest];
    this.#session.check("cuEventSynchronize", this.#session.functions.cuEventSynchronize(event));
    return oldest;
  }

  giveBack(block: number): void {
    this.#free.push(block);
  }

  /** Queues a copy of the first bytes of a taken block; the block is free after it. False, without a copy, where it cannot be pinned. */
  copy(block: number, { address, byteLength }: { address: number; byteLength: number }): boolean {
    const { functions, stream } = this.#session;
    const source = this.#blocks[block];
    if (source.event === 0 && !this.#pin(source)) {
      this.giveBack(block);
      return false;
    }
    const status = functions.cuMemcpyHtoDAsync_v2(address, source.address, byteLength, stream);
    this.#session.check("cuMemcpyHtoDAsync", status);
    this.#session.check("cuEventRecord", functions.cuEventRecord(source.event, stream));
    this.#copying.push(block);
    return true;
  }

  /** Waits for the stream, also after an error: what is queued still reads the blocks. Never throws. */
  dispose(): void {
    const { functions, stream } = this.#session;
    functions.cuStreamSynchronize(stream);
    for (const { address, event } of this.#blocks) {
      if (event === 0) continue;
      functions.cuEventDestroy_v2(event);
      functions.cuMemHostUnregister(address);
    }
    this.#library.free(this.#memory);
  }

  #pin(block: RingBlock): boolean {
    const { functions, out } = this.#session.driver;
    if (functions.cuMemHostRegister_v2(block.address, this.#blockBytes, 0) !== cudaSuccess) return false;
    if (functions.cuEventCreate(out.address, eventWithoutTiming) !== cudaSuccess) {
      functions.cuMemHostUnregister(block.address);
      return false;
    }
    block.event = out.word(0);
    return true;
  }
}
