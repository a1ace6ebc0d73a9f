/**
 * Files straight into GPU memory: threads fill a ring of pinned blocks out of the page cache while the copy engine empties others. The
 * order of the compute stream holds. Knows nothing of formats.
 */
import { availableParallelism } from "node:os";
import { FileReaders, type FilePiece } from "./fileReaders.ts";
import type { CudaSession } from "./session.ts";
import { PinnedBlock } from "./pinned.ts";

/** Blocks whose copies are under way while the others are read into. */
const numCopying = 4;

export interface FileUploadOptions {
  readonly numThreads?: number;
  readonly blockBytes?: number;
  /** Less in all than this is left to one thread: it is done before the others have started. */
  readonly leastBytes?: number;
}

/** A range of an open file and the address where it goes. */
export interface FileUpload extends FilePiece {
  readonly address: number;
  /** Called as bytes arrive. */
  readonly onRead?: ((byteLength: number) => void) | undefined;
}

/** Ends when the bytes are in GPU memory. Gives the indices of the ranges that are not, in order. */
export function uploadFileRanges(
  session: CudaSession,
  uploads: readonly FileUpload[],
  {
    numThreads = Math.max(1, Math.min(8, availableParallelism() - 2)),
    blockBytes = 2 ** 23,
    leastBytes = 2 ** 29,
  }: FileUploadOptions = {},
): number[] {
  const totalBytes = uploads.reduce((total, { byteLength }) => total + byteLength, 0);
  if (totalBytes < leastBytes) return uploads.map((_, index) => index);
  const pieces = cut(uploads, blockBytes);
  const numSlots = 2 * numThreads + numCopying;
  const blocks: PinnedBlock[] = [];
  let readers: FileReaders | undefined;
  const failed = new Set<number>();
  try {
    // The threads start while memory is pinned: each takes a tenth of a second.
    readers = new FileReaders({ numSlots, numThreads });
    for (let slot = 0; slot < Math.min(numSlots, pieces.length); slot++)
      blocks.push(new PinnedBlock(session, blockBytes));
    if (!readers.waitForStart()) return uploads.map((_, index) => index);
    let posted = 0;
    for (const { upload, byteLength, address } of pieces) {
      while (posted < pieces.length && readers.numPending < numSlots - numCopying) {
        const block = blocks[readers.nextSlot];
        block.wait();
        readers.post({ ...pieces[posted], address: block.address });
        posted++;
      }
      const { slot, isWhole } = readers.take();
      if (!isWhole) failed.add(upload);
      else {
        copy(session, blocks[slot], { address, byteLength });
        uploads[upload].onRead?.(byteLength);
      }
    }
  } finally {
    readers?.dispose();
    // Also after an error: what is queued still reads the blocks.
    session.functions.cuStreamSynchronize(session.stream);
    for (const block of blocks) block.dispose();
  }
  session.synchronize();
  return [...failed];
}

function copy(
  session: CudaSession,
  block: PinnedBlock,
  { address, byteLength }: { address: number; byteLength: number },
): void {
  const { functions, stream } = session;
  const status = functions.cuMemcpyHtoDAsync_v2(address, block.address, byteLength, stream);
  session.check("cuMemcpyHtoDAsync", status);
  block.record();
}

function cut(uploads: readonly FileUpload[], blockBytes: number): (FileUpload & { upload: number })[] {
  return uploads.flatMap(({ descriptor, position, byteLength, address }, upload) =>
    Array.from({ length: Math.ceil(byteLength / blockBytes) }, (_, i) => ({
      upload,
      descriptor,
      position: position + i * blockBytes,
      byteLength: Math.min(blockBytes, byteLength - i * blockBytes),
      address: address + i * blockBytes,
    })),
  );
}
