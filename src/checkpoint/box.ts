/**
 * Boxes of elements inside row-major tensors: cutting one out, and putting a tensor together from several. Both give range readers, so
 * that a tensor that lies in many files streams through a small buffer. Shards of tensor parallelism, zarr chunks, stacked layers and the
 * regrouping of query, key and value rows are all boxes.
 */
import { invariant, numElements } from "../base/index.ts";
import type { RangeReader } from "./bytes.ts";

/** The elements from `start` on, `shape` of them along each axis. */
export interface Box {
  readonly start: readonly number[];
  readonly shape: readonly number[];
}

/** A row-major tensor to read from. */
export interface Readable {
  readonly shape: readonly number[];
  readonly itemBytes: number;
  readonly readRange: RangeReader;
}

/** Part of a tensor: where its bytes go, and its own row-major bytes. */
export interface BoxPart {
  readonly box: Box;
  readonly readRange: RangeReader;
}

/** The box's bytes as they lie in the whole: equal runs at growing positions. */
interface Runs {
  readonly runBytes: number;
  readonly numRuns: number;
  readonly positionOf: (run: number) => number;
}

function runsOf(shape: readonly number[], { start, shape: length }: Box, itemBytes: number): Runs {
  // Axes from `split` on lie together in one run.
  let split = shape.length;
  while (split > 0 && (split === shape.length || length[split] === shape[split])) split--;
  const strides = shape.map((_, axis) => numElements(shape.slice(axis + 1)) * itemBytes);
  const origin = start.reduce((sum, index, axis) => sum + index * strides[axis], 0);
  return {
    runBytes: numElements(length.slice(split)) * itemBytes,
    numRuns: numElements(length.slice(0, split)),
    positionOf(run) {
      let position = origin;
      let rest = run;
      for (let axis = split - 1; axis >= 0; axis--) {
        position += (rest % length[axis]) * strides[axis];
        rest = Math.floor(rest / length[axis]);
      }
      return position;
    },
  };
}

function expectInside(shape: readonly number[], { start, shape: length }: Box): void {
  const isInside =
    start.length === shape.length &&
    length.length === shape.length &&
    shape.every(
      (limit, axis) => start[axis] >= 0 && length[axis] >= 0 && start[axis] + length[axis] <= limit,
    );
  invariant(
    isInside,
    `a box of (${length.join(", ")}) at (${start.join(", ")}) within (${shape.join(", ")})`,
  );
}

/** Reads the box of a tensor as a tensor of its own. */
export function cutBox({ shape, itemBytes, readRange }: Readable, box: Box): RangeReader {
  expectInside(shape, box);
  const { runBytes, positionOf } = runsOf(shape, box, itemBytes);
  return (into, byteOffset) => {
    for (let done = 0; done < into.byteLength;) {
      const run = Math.floor((byteOffset + done) / runBytes);
      const within = byteOffset + done - run * runBytes;
      const length = Math.min(runBytes - within, into.byteLength - done);
      readRange(into.subarray(done, done + length), positionOf(run) + within);
      done += length;
    }
  };
}

/** Scattered runs are read through a buffer of this size: a part's runs follow each other in the part. */
const scratchBytes = 1 << 22;

/** Reads a tensor that is tiled by parts. The caller has seen to it that they cover it. */
export function joinBoxes(
  shape: readonly number[],
  itemBytes: number,
  parts: readonly BoxPart[],
): RangeReader {
  const laid = parts.map(({ box, readRange }) => {
    expectInside(shape, box);
    return { runs: runsOf(shape, box, itemBytes), readRange };
  });
  return (into, byteOffset) => {
    for (const { runs, readRange } of laid) copyOverlap(into, byteOffset, { runs, readRange });
  };
}

function copyOverlap(
  into: Uint8Array,
  byteOffset: number,
  { runs, readRange }: { runs: Runs; readRange: RangeReader },
): void {
  const { runBytes, numRuns, positionOf } = runs;
  const end = byteOffset + into.byteLength;
  let run = firstRunEndingAfter(runs, byteOffset);
  if (runBytes === 0) return;
  while (run < numRuns && positionOf(run) < end) {
    const position = positionOf(run);
    const from = Math.max(position, byteOffset);
    const to = Math.min(position + runBytes, end);
    const isWhole = from === position && to === position + runBytes;
    if (!isWhole || runBytes * 2 > scratchBytes) {
      readRange(into.subarray(from - byteOffset, to - byteOffset), run * runBytes + (from - position));
      run++;
      continue;
    }
    run += scatterWholeRuns(into, byteOffset, { runs, readRange, first: run });
  }
}

/** Reads as many whole runs as the buffer holds and the range wants, from `first` on; gives how many. */
function scatterWholeRuns(
  into: Uint8Array,
  byteOffset: number,
  { runs, readRange, first }: { runs: Runs; readRange: RangeReader; first: number },
): number {
  const { runBytes, numRuns, positionOf } = runs;
  const end = byteOffset + into.byteLength;
  const most = Math.min(Math.floor(scratchBytes / runBytes), numRuns - first);
  let count = 1;
  while (count < most && positionOf(first + count) + runBytes <= end) count++;
  const scratch = new Uint8Array(count * runBytes);
  readRange(scratch, first * runBytes);
  for (let i = 0; i < count; i++) {
    into.set(scratch.subarray(i * runBytes, (i + 1) * runBytes), positionOf(first + i) - byteOffset);
  }
  return count;
}

/** Positions grow with the run: a binary search. */
function firstRunEndingAfter({ runBytes, numRuns, positionOf }: Runs, byteOffset: number): number {
  let low = 0;
  let high = numRuns;
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    if (positionOf(middle) + runBytes > byteOffset) high = middle;
    else low = middle + 1;
  }
  return low;
}
