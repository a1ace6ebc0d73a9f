/**
 * Cuts a stream of bytes into runs of whole lines that a worker can parse alone, and a run into its lines. Memory is bounded
 * by the longest line; a line above `maxLineBytes` is an error that names it.
 */
import { DataError, formatBytes } from "../../base/index.ts";

const newline = 10;
const defaultTargetBytes = 1 << 18;
const defaultMaxLineBytes = 1 << 28;

export interface LineRun {
  /** Whole lines, in memory of their own. */
  readonly bytes: Uint8Array;
  /** The line, from 1, that the first of them is. */
  readonly firstLine: number;
}

/** Runs of whole lines of at least `targetBytes` (the last may be shorter). Throws DataError. */
export async function* lineRuns(
  file: string,
  chunks: AsyncIterable<Uint8Array>,
  options: { targetBytes?: number; maxLineBytes?: number } = {},
): AsyncGenerator<LineRun> {
  const { targetBytes = defaultTargetBytes, maxLineBytes = defaultMaxLineBytes } = options;
  let pending: Uint8Array[] = [];
  let pendingBytes = 0;
  let firstLine = 1;
  const take = (): LineRun => {
    const bytes = new Uint8Array(pendingBytes);
    let at = 0;
    for (const piece of pending) {
      bytes.set(piece, at);
      at += piece.length;
    }
    const run = { bytes, firstLine };
    firstLine += countLines(bytes);
    pending = [];
    pendingBytes = 0;
    return run;
  };
  for await (const chunk of chunks) {
    const end = chunk.lastIndexOf(newline) + 1;
    if (pendingBytes + end < targetBytes || end === 0) {
      pending.push(chunk);
      pendingBytes += chunk.length;
      if (end === 0 && pendingBytes > maxLineBytes) {
        const line = firstLine + countLines(take().bytes);
        throw new DataError(
          "data",
          `expected lines of at most ${formatBytes(maxLineBytes)} in ${file}, got a longer one at line ${line}`,
          { hint: "is it one record per line?" },
        );
      }
      continue;
    }
    pending.push(chunk.subarray(0, end));
    pendingBytes += end;
    yield take();
    if (end < chunk.length) {
      pending.push(chunk.subarray(end));
      pendingBytes = chunk.length - end;
    }
  }
  if (pendingBytes > 0) yield take();
}

/** Newlines in `bytes`. */
export function countLines(bytes: Uint8Array): number {
  let count = 0;
  for (let at = bytes.indexOf(newline); at !== -1; at = bytes.indexOf(newline, at + 1)) count++;
  return count;
}

/** The lines of a run, without their ends ("\n", "\r\n"), and their numbers. */
export function* linesOf(run: LineRun): Generator<{ bytes: Uint8Array; line: number }> {
  const { bytes } = run;
  let line = run.firstLine;
  for (let begin = 0; begin < bytes.length;) {
    const found = bytes.indexOf(newline, begin);
    const next = found === -1 ? bytes.length : found;
    const end = next > begin && bytes[next - 1] === 13 ? next - 1 : next;
    yield { bytes: bytes.subarray(begin, end), line };
    begin = next + 1;
    line++;
  }
}
