/**
 * Copies between the host and the GPU through pinned memory: uploads from a ring whose bytes may be changed as soon as the call
 * returns, downloads with two blocks in flight, readbacks into slots of their own. Everything goes through the compute stream:
 * the contract's order is one order, and batches and logits are small. Knows nothing of buffers or operators.
 */
import type { Readback } from "../contract.ts";
import { PinnedBlock } from "./pinned.ts";
import type { CudaSession } from "./session.ts";

const blockBytes = 2 ** 23;
const numBlocks = 4;
const smallestSlotBytes = 2 ** 12;

export class Staging {
  readonly #session: CudaSession;
  /** Blocks of uploads, made when they are first needed. */
  readonly #ring: PinnedBlock[] = [];
  #current = 0;
  #usedBytes = 0;
  readonly #slots = new Map<number, PinnedBlock[]>();
  readonly #allSlots: PinnedBlock[] = [];
  /** The slot of the readback that was waited for last. */
  #lastWaited: PinnedBlock | undefined;

  constructor(session: CudaSession) {
    this.#session = session;
  }

  upload(target: number, bytes: Uint8Array): void {
    for (let offset = 0; offset < bytes.byteLength;) {
      const block = this.#uploadBlock();
      const length = Math.min(bytes.byteLength - offset, block.byteLength - this.#usedBytes);
      block.bytes.set(bytes.subarray(offset, offset + length), this.#usedBytes);
      const { functions, stream } = this.#session;
      const source = block.address + this.#usedBytes;
      const status = functions.cuMemcpyHtoDAsync_v2(target + offset, source, length, stream);
      this.#session.check("cuMemcpyHtoDAsync", status);
      // Later pieces start at a multiple of 16 bytes, which copies fastest.
      this.#usedBytes = Math.min(block.byteLength, Math.ceil((this.#usedBytes + length) / 16) * 16);
      offset += length;
    }
  }

  /** Waits for queued work and fills `into`. */
  download(source: number, into: Uint8Array): void {
    const { functions, stream } = this.#session;
    const numPieces = Math.ceil(into.byteLength / blockBytes);
    const blocks = [this.#takeSlot(Math.min(blockBytes, into.byteLength))];
    if (numPieces > 1) blocks.push(this.#takeSlot(blockBytes));
    const range = (piece: number): [start: number, end: number] => [
      piece * blockBytes,
      Math.min((piece + 1) * blockBytes, into.byteLength),
    ];
    for (let piece = 0; piece <= numPieces; piece++) {
      if (piece < numPieces) {
        const block = blocks[piece % 2];
        const [start, end] = range(piece);
        const status = functions.cuMemcpyDtoHAsync_v2(block.address, source + start, end - start, stream);
        this.#session.check("cuMemcpyDtoHAsync", status);
        block.record();
      }
      if (piece > 0) {
        const block = blocks[(piece - 1) % 2];
        const [start, end] = range(piece - 1);
        block.wait();
        into.set(block.bytes.subarray(0, end - start), start);
      }
    }
    for (const block of blocks) this.#giveSlot(block);
  }

  readback(source: number, byteLength: number): Readback {
    const slot = this.#takeSlot(byteLength);
    const { functions, stream } = this.#session;
    if (byteLength > 0) {
      const status = functions.cuMemcpyDtoHAsync_v2(slot.address, source, byteLength, stream);
      this.#session.check("cuMemcpyDtoHAsync", status);
    }
    slot.record();
    return new PinnedReadback(this.#session, slot, {
      byteLength,
      onWaited: (waited) => {
        if (this.#lastWaited !== undefined) this.#giveSlot(this.#lastWaited);
        this.#lastWaited = waited;
      },
    });
  }

  /** Frees the pinned memory; the caller has waited for the device. Never throws. */
  dispose(): void {
    for (const block of [...this.#ring, ...this.#allSlots]) block.dispose();
    this.#ring.length = 0;
    this.#allSlots.length = 0;
    this.#slots.clear();
  }

  /** The block that the next piece goes to, with room in it. */
  #uploadBlock(): PinnedBlock {
    const current = this.#ring[this.#current];
    if (current !== undefined && this.#usedBytes < current.byteLength) return current;
    if (current !== undefined) {
      current.record();
      this.#current = (this.#current + 1) % numBlocks;
    }
    this.#usedBytes = 0;
    const next = (this.#ring[this.#current] ??= new PinnedBlock(this.#session, blockBytes));
    next.wait();
    return next;
  }

  #takeSlot(byteLength: number): PinnedBlock {
    const capacity = Math.max(smallestSlotBytes, 2 ** Math.ceil(Math.log2(Math.max(1, byteLength))));
    const free = this.#slots.get(capacity)?.pop();
    if (free !== undefined) return free;
    const slot = new PinnedBlock(this.#session, capacity);
    this.#allSlots.push(slot);
    return slot;
  }

  #giveSlot(slot: PinnedBlock): void {
    const list = this.#slots.get(slot.byteLength);
    if (list === undefined) this.#slots.set(slot.byteLength, [slot]);
    else list.push(slot);
  }
}

class PinnedReadback implements Readback {
  readonly #session: CudaSession;
  readonly #slot: PinnedBlock;
  readonly #byteLength: number;
  readonly #onWaited: (slot: PinnedBlock) => void;
  #bytes: Uint8Array | undefined;

  constructor(
    session: CudaSession,
    slot: PinnedBlock,
    options: { byteLength: number; onWaited: (slot: PinnedBlock) => void },
  ) {
    this.#session = session;
    this.#slot = slot;
    this.#byteLength = options.byteLength;
    this.#onWaited = options.onWaited;
  }

  get isReady(): boolean {
    return this.#bytes !== undefined || !this.#slot.isPending || this.#session.isEventDone(this.#slot.event);
  }

  wait(): Uint8Array {
    if (this.#bytes === undefined) {
      this.#slot.wait();
      this.#bytes = this.#slot.bytes.subarray(0, this.#byteLength);
      this.#onWaited(this.#slot);
    }
    return this.#bytes;
  }
}
