/**
 * Native memory by size classes with free lists, live-byte accounting, and the buffers handed to callers. Knows nothing of where
 * the memory is: a backend gives a MemorySource. (The CUDA backend joins free neighbours instead: docs/decisions/0010.)
 *
 * A released block is reused at once: work is queued in one stream, so its next user comes later in that stream. While a graph
 * is recorded, released blocks are held for it instead (they may serve again within the recording), because every
 * replay writes to them. Classes waste at most a fifth below 1 MiB and an eighth above. A run that changes its sizes leaves old
 * classes idle: they go back to the system when a new block is needed and they are more than what is in use.
 */
import { DisposedError, formatBytes, invariant, OutOfMemoryError } from "../base/index.ts";
import type { Device, DeviceBuffer, MemoryStatistics } from "./contract.ts";

/** Where memory comes from: addresses of 256-byte aligned blocks, 0 where there is no room. */
export interface MemorySource {
  allocate(byteLength: number): number;
  free(address: number, byteLength: number): void;
}

export interface Block {
  readonly address: number;
  /** Bytes of its class; at least what was asked for. */
  readonly capacity: number;
  /** Bytes asked for by its present owner. */
  byteLength: number;
  /** For the backend, such as a view of the memory. Lives as long as the block. */
  view?: ArrayBuffer;
}

const smallestClass = 256;
/** Idle memory below this is never worth giving back. */
const idleFloorBytes = 2 ** 28;
const largeGranule = 2 ** 21;

/** The capacity of the class that holds `byteLength`. */
export function sizeClass(byteLength: number): number {
  if (byteLength <= smallestClass) return smallestClass;
  if (byteLength >= 8 * largeGranule) return Math.ceil(byteLength / largeGranule) * largeGranule;
  const octave = 2 ** Math.floor(Math.log2(byteLength - 1));
  const step = Math.max(octave < 2 ** 20 ? octave / 4 : octave / 8, smallestClass);
  return Math.ceil(byteLength / step) * step;
}

export class MemoryPool {
  readonly #component: string;
  readonly #source: MemorySource;
  readonly #free = new Map<number, Block[]>();
  /** Blocks released since a recording began, by capacity; undefined outside of recordings. */
  #held: Map<number, Block[]> | undefined;
  #liveBytes = 0;
  #peakLiveBytes = 0;
  #numLiveBuffers = 0;
  #reservedBytes = 0;
  #peakReservedBytes = 0;
  readonly #limitBytes: number;
  #isClosed = false;

  /** Refuses to reserve more than `limitBytes` in all. */
  constructor(component: string, source: MemorySource, limitBytes = Number.POSITIVE_INFINITY) {
    this.#component = component;
    this.#source = source;
    this.#limitBytes = limitBytes;
  }

  /** Throws OutOfMemoryError. */
  allocate(byteLength: number): Block {
    invariant(Number.isSafeInteger(byteLength) && byteLength >= 0, `allocate(${byteLength}) bytes`);
    const capacity = sizeClass(byteLength);
    const block =
      (this.#held && takeFrom(this.#held, capacity)) ??
      takeFrom(this.#free, capacity) ??
      this.#reserve(capacity, byteLength);
    block.byteLength = byteLength;
    this.#liveBytes += byteLength;
    this.#numLiveBuffers++;
    this.#peakLiveBytes = Math.max(this.#peakLiveBytes, this.#liveBytes);
    return block;
  }

  release(block: Block): void {
    this.#liveBytes -= block.byteLength;
    this.#numLiveBuffers--;
    if (this.#isClosed) {
      this.#freeBlock(block);
      return;
    }
    putInto(this.#held ?? this.#free, block);
  }

  /** From now on released blocks are held for a recording. */
  beginRecording(): void {
    invariant(this.#held === undefined, "recordings do not nest");
    this.#held = new Map();
  }

  /** Ends the recording; the blocks it holds are the graph's until `giveBack`. */
  endRecording(): Block[] {
    invariant(this.#held !== undefined, "no recording to end");
    const blocks = [...this.#held.values()].flat();
    this.#held = undefined;
    return blocks;
  }

  /** Returns the blocks of a graph that will not be replayed again. */
  giveBack(blocks: readonly Block[]): void {
    for (const block of blocks) {
      if (this.#isClosed) this.#freeBlock(block);
      else putInto(this.#free, block);
    }
  }

  statistics(): MemoryStatistics {
    return {
      liveBytes: this.#liveBytes,
      peakLiveBytes: this.#peakLiveBytes,
      numLiveBuffers: this.#numLiveBuffers,
      reservedBytes: this.#reservedBytes,
      peakReservedBytes: this.#peakReservedBytes,
    };
  }

  resetPeak(): void {
    this.#peakLiveBytes = this.#liveBytes;
    this.#peakReservedBytes = this.#reservedBytes;
  }

  /** Frees the blocks of the free lists. */
  trim(): void {
    for (const blocks of this.#free.values()) {
      for (const block of blocks) this.#freeBlock(block);
    }
    this.#free.clear();
  }

  /** Frees what is free now, and from now on every block as it is released. */
  close(): void {
    this.#isClosed = true;
    this.trim();
  }

  #freeBlock(block: Block): void {
    this.#source.free(block.address, block.capacity);
    this.#reservedBytes -= block.capacity;
  }

  #reserve(capacity: number, byteLength: number): Block {
    const idleBytes = this.#idleBytes();
    if (idleBytes > Math.max(idleFloorBytes, this.#reservedBytes - idleBytes)) this.trim();
    let address = this.#fits(capacity) ? this.#source.allocate(capacity) : 0;
    if (address === 0) {
      this.trim();
      address = this.#fits(capacity) ? this.#source.allocate(capacity) : 0;
    }
    if (address === 0) {
      throw new OutOfMemoryError(
        this.#component,
        `expected room for ${formatBytes(byteLength)}, got none beside the ${formatBytes(this.#reservedBytes)} in use`,
        {
          hint: "choose a smaller batch, sequence or model",
          fields: { byteLength, reservedBytes: this.#reservedBytes },
        },
      );
    }
    this.#reservedBytes += capacity;
    this.#peakReservedBytes = Math.max(this.#peakReservedBytes, this.#reservedBytes);
    return { address, capacity, byteLength };
  }

  #idleBytes(): number {
    let total = 0;
    for (const [capacity, blocks] of this.#free) total += capacity * blocks.length;
    return total;
  }

  #fits(capacity: number): boolean {
    return this.#reservedBytes + capacity <= this.#limitBytes;
  }
}

function putInto(lists: Map<number, Block[]>, block: Block): void {
  const list = lists.get(block.capacity);
  if (list === undefined) lists.set(block.capacity, [block]);
  else list.push(block);
}

/** A block of `capacity`, or for large ones of up to an eighth more. */
function takeFrom(lists: Map<number, Block[]>, capacity: number): Block | undefined {
  const exact = lists.get(capacity)?.pop();
  if (exact !== undefined || capacity < 8 * largeGranule) return exact;
  let best: Block[] | undefined;
  let bestCapacity = capacity * 1.125;
  for (const [candidate, blocks] of lists) {
    if (candidate > capacity && candidate <= bestCapacity && blocks.length > 0) {
      best = blocks;
      bestCapacity = candidate;
    }
  }
  return best?.pop();
}

/** A buffer over a block of a MemoryPool. */
export class PooledBuffer implements DeviceBuffer {
  readonly device: Device;
  readonly byteLength: number;
  readonly #pool: MemoryPool;
  #block: Block | undefined;

  constructor(device: Device, pool: MemoryPool, byteLength: number) {
    this.device = device;
    this.byteLength = byteLength;
    this.#pool = pool;
    this.#block = pool.allocate(byteLength);
  }

  get isDisposed(): boolean {
    return this.#block === undefined;
  }

  /** Its block. Throws DisposedError. */
  get block(): Block {
    if (this.#block === undefined) {
      throw new DisposedError(
        this.device.kind,
        `expected a buffer in use, got one of ${formatBytes(this.byteLength)} that was disposed`,
      );
    }
    return this.#block;
  }

  dispose(): void {
    if (this.#block === undefined) return;
    this.#pool.release(this.#block);
    this.#block = undefined;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
