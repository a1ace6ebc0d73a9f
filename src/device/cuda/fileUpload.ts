/**
 * Files straight into GPU memory: threads fill a ring of pinned blocks out of the page cache while the copy engine empties others. Every
 * piece has its own place on the GPU, so blocks are copied in the order in which they are full. Knows nothing of formats.
 */
import { availableParallelism } from "node:os";
import { ConfigError, invariant } from "../../base/index.ts";
import { FileReaders, readsPerThread, type FilePiece } from "./fileReaders.ts";
import { PinnedRing } from "./pinnedRing.ts";
import type { CudaSession } from "./session.ts";
import { openSystemLibrary, type SystemLibrary } from "./systemLibrary.ts";

/** Blocks whose copies are under way or queued while the others are read into. */
const numCopying = 4;
const mostThreads = 12;
/** The C library's own limit. */
const largestThreads = 20;

export interface FileUploadOptions {
  /** 0 leaves everything to one thread's way. */
  readonly numThreads?: number | undefined;
  readonly blockBytes?: number;
  /** Less in all than this is left to one thread's way, which is as fast. */
  readonly leastBytes?: number;
  /** Undefined where the system has none. */
  readonly library?: SystemLibrary | undefined;
  /** Called as each part of the work ends, for benches. */
  readonly onPhase?: (phase: UploadPhase) => void;
}

export type UploadPhase =
  | "ring made"
  | "reads started"
  | "first block read"
  | "all blocks read"
  | "all copied"
  | "ring released";

/** A range of an open file and the address where it goes. */
export interface FileUpload extends FilePiece {
  readonly address: number;
  /** Called as bytes arrive. */
  readonly onRead?: ((byteLength: number) => void) | undefined;
}

/** How many threads NAUTILUS_READ_THREADS asks for: "off" is 0. Throws ConfigError. */
export function readThreads(environment: Readonly<Record<string, string | undefined>>): number | undefined {
  const value = environment["NAUTILUS_READ_THREADS"] ?? "auto";
  if (value === "auto") return undefined;
  if (value === "off") return 0;
  const numThreads = Number(value);
  if (Number.isInteger(numThreads) && numThreads >= 1 && numThreads <= largestThreads) return numThreads;
  throw new ConfigError(
    "cuda",
    `expected NAUTILUS_READ_THREADS to be auto, off or 1 to ${largestThreads}, got ${value}`,
  );
}

/** Ends when the bytes are in GPU memory. Gives the indices of the ranges that are not, in order. Throws DeviceError. */
export function uploadFileRanges(
  session: CudaSession,
  uploads: readonly FileUpload[],
  options: FileUploadOptions = {},
): number[] {
  const {
    numThreads = Math.max(1, Math.min(mostThreads, availableParallelism() - 2)),
    blockBytes = 2 ** 22,
    leastBytes = 2 ** 24,
    onPhase = () => {},
  } = options;
  const all = uploads.map((_, index) => index);
  const totalBytes = uploads.reduce((total, { byteLength }) => total + byteLength, 0);
  const library = "library" in options ? options.library : openSystemLibrary();
  if (totalBytes < leastBytes || numThreads === 0 || library === undefined) return all;
  const pieces = cut(uploads, blockBytes);
  const numBlocks = Math.min(pieces.length, readsPerThread * numThreads + numCopying);
  if (numBlocks === 0) return [];
  const ring = PinnedRing.open(session, library, { numBlocks, blockBytes });
  if (ring === undefined) return all;
  onPhase("ring made");
  let readers: FileReaders | undefined;
  try {
    readers = new FileReaders(library, { numSlots: numBlocks, numThreads });
    const failed = transfer(pieces, { readers, ring, onPhase });
    session.synchronize();
    onPhase("all copied");
    return [...failed].toSorted((a, b) => a - b);
  } finally {
    readers?.dispose();
    ring.dispose();
    onPhase("ring released");
  }
}

interface UploadPiece extends FileUpload {
  /** The range it is of. */
  readonly upload: number;
}

/** Reads and queues the copies of all pieces; the numbers of the ranges that are not whole. */
function transfer(
  pieces: readonly UploadPiece[],
  {
    readers,
    ring,
    onPhase,
  }: { readers: FileReaders; ring: PinnedRing; onPhase: (phase: UploadPhase) => void },
): Set<number> {
  const failed = new Set<number>();
  const inBlocks: UploadPiece[] = [];
  let next = 0;
  const start = (): void => {
    for (; next < pieces.length && readers.hasRoom; next++) {
      const piece = pieces[next];
      if (failed.has(piece.upload)) continue;
      const block = ring.take({ waits: readers.numPending === 0 });
      // The next read that ends leaves one.
      if (block === undefined) return;
      inBlocks[block] = piece;
      if (readers.post(block, { ...piece, address: ring.addressOf(block) })) continue;
      failed.add(piece.upload);
      ring.giveBack(block);
    }
  };
  start();
  onPhase("reads started");
  let isFirst = true;
  while (readers.numPending > 0) {
    for (const { slot, isWhole } of readers.take()) {
      if (isFirst) onPhase("first block read");
      isFirst = false;
      const { upload, address, byteLength, onRead } = inBlocks[slot];
      if (!isWhole) ring.giveBack(slot);
      if (!isWhole || !ring.copy(slot, { address, byteLength })) failed.add(upload);
      else onRead?.(byteLength);
    }
    start();
  }
  invariant(next === pieces.length, "all pieces were started");
  onPhase("all blocks read");
  return failed;
}

/** In the order of the files, as a disk gives them fastest. */
function cut(uploads: readonly FileUpload[], blockBytes: number): UploadPiece[] {
  return uploads
    .flatMap(({ descriptor, position, byteLength, address, onRead }, upload) =>
      Array.from({ length: Math.ceil(byteLength / blockBytes) }, (_, i) => ({
        upload,
        descriptor,
        position: position + i * blockBytes,
        byteLength: Math.min(blockBytes, byteLength - i * blockBytes),
        address: address + i * blockBytes,
        onRead,
      })),
    )
    .toSorted((a, b) => a.descriptor - b.descriptor || a.position - b.position);
}
