/**
 * Progress on a terminal: one line, redrawn in place and cut to the width; on anything else a plain line now and then. Writes
 * to the standard error stream, so that results on standard output stay clean.
 */
import { formatDuration } from "../../base/index.ts";

const barWidth = 20;
const redrawEveryMs = 80;
const plainEveryMs = 5000;
/** A guess from less than this is off by orders of magnitude: the first piece of work waits for whatever starts. */
const settlingSeconds = 1;

/** A bar of `barWidth` characters for a share of 0 to 1. */
export function bar(share: number): string {
  const numFull = Math.round(Math.min(1, Math.max(0, share)) * barWidth);
  return "█".repeat(numFull) + "░".repeat(barWidth - numFull);
}

export class ProgressLine {
  readonly #stream: NodeJS.WriteStream;
  readonly #isTerminal: boolean;
  readonly #startMs = performance.now();
  #lastMs = -Infinity;
  #hasLine = false;
  #lastText = "";

  constructor(stream: NodeJS.WriteStream = process.stderr) {
    this.#stream = stream;
    this.#isTerminal = stream.isTTY;
  }

  /** Shows `label`, the bar, the share and the time left, then `details`. */
  update(label: string, share: number, details = ""): void {
    const nowMs = performance.now();
    const isDone = share >= 1;
    if (!isDone && nowMs - this.#lastMs < (this.#isTerminal ? redrawEveryMs : plainEveryMs)) return;
    this.#lastMs = nowMs;
    const elapsedSeconds = (nowMs - this.#startMs) / 1000;
    const left =
      share > 0 && elapsedSeconds >= settlingSeconds
        ? formatDuration((elapsedSeconds / share) * (1 - share))
        : "";
    const percent = `${Math.floor(share * 100)}%`.padStart(4);
    this.#show(
      `${label} ${bar(share)}${percent}  ${details}${isDone ? `  in ${formatDuration(elapsedSeconds)}` : left === "" ? "" : `  ${left} left`}`,
    );
  }

  /** Shows a line that is not a share of anything. */
  status(text: string): void {
    this.#show(text);
  }

  #show(text: string): void {
    if (!this.#isTerminal) {
      // Work that tells its end twice is not over twice.
      if (text === this.#lastText) return;
      this.#lastText = text;
      this.#stream.write(`${text}\n`);
      return;
    }
    const width = (this.#stream.columns ?? 80) - 1;
    this.#stream.write(`\r\u001b[2K${text.length > width ? `${text.slice(0, width - 1)}…` : text}`);
    this.#hasLine = true;
  }

  /** Prints a line that stays, above the progress. */
  print(text: string): void {
    this.clear();
    this.#stream.write(`${text}\n`);
  }

  clear(): void {
    if (this.#hasLine) this.#stream.write("\r\u001b[2K");
    this.#hasLine = false;
  }

  /** Leaves the last line standing. */
  finish(): void {
    if (this.#hasLine) this.#stream.write("\n");
    this.#hasLine = false;
  }
}
