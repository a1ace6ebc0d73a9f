/**
 * Files on their way, as a terminal shows them: a bar for each file that moves and one for all, redrawn in place; on anything else a
 * plain line now and then. Writes to the standard error stream.
 */
import { formatBytes, formatDuration } from "../../base/index.ts";
import { bar, ProgressLine } from "./progress.ts";

const redrawEveryMs = 100;
const mostFiles = 8;
const rateWindowMs = 5000;

interface Transfer {
  doneBytes: number;
  sizeBytes: number;
  isChecking: boolean;
}

export class Transfers implements Disposable {
  readonly #stream: NodeJS.WriteStream;
  readonly #line: ProgressLine;
  readonly #active = new Map<string, Transfer>();
  readonly #history: { ms: number; bytes: number }[] = [];
  #totalBytes = 0;
  #doneBytes = 0;
  #receivedBytes = 0;
  #numLines = 0;
  #lastMs = -Infinity;

  constructor(stream: NodeJS.WriteStream = process.stderr) {
    this.#stream = stream;
    this.#line = new ProgressLine(stream);
  }

  /** What the whole is, and what of it is there at the start. */
  start({ totalBytes, doneBytes }: { totalBytes: number; doneBytes: number }): void {
    this.#totalBytes = totalBytes;
    this.#doneBytes = doneBytes;
    this.#history.push({ ms: performance.now(), bytes: 0 });
  }

  received(name: string, sizeBytes: number, bytes: number): void {
    const transfer = this.#active.get(name) ?? { doneBytes: 0, sizeBytes, isChecking: false };
    transfer.doneBytes = Math.max(0, transfer.doneBytes + bytes);
    this.#active.set(name, transfer);
    this.#doneBytes += bytes;
    this.#receivedBytes += bytes;
    this.#draw();
  }

  checking(name: string, sizeBytes: number): void {
    this.#active.set(name, { doneBytes: sizeBytes, sizeBytes, isChecking: true });
    this.#draw();
  }

  finished(name: string): void {
    this.#active.delete(name);
    this.#draw();
  }

  /** A line that stays. */
  print(text: string): void {
    this.#erase();
    this.#stream.write(`${text}\n`);
  }

  [Symbol.dispose](): void {
    this.#erase();
  }

  #draw(): void {
    const nowMs = performance.now();
    if (!this.#stream.isTTY) {
      this.#line.update("pulled", this.#share(), this.#details(nowMs));
      return;
    }
    if (nowMs - this.#lastMs < redrawEveryMs) return;
    this.#lastMs = nowMs;
    const width = (this.#stream.columns ?? 80) - 1;
    const lines = [...this.#active]
      .slice(0, mostFiles)
      .map(([name, transfer]) => fileLine(name, transfer, width));
    lines.push(`${bar(this.#share())} ${this.#details(nowMs)}  ${this.#left(nowMs)} left`);
    const up = this.#numLines > 0 ? `\u001b[${this.#numLines}A` : "";
    this.#stream.write(`${up}\r\u001b[J${lines.map((line) => `${line.slice(0, width)}\n`).join("")}`);
    this.#numLines = lines.length;
  }

  #erase(): void {
    if (this.#numLines > 0) this.#stream.write(`\u001b[${this.#numLines}A\r\u001b[J`);
    this.#numLines = 0;
    this.#lastMs = -Infinity;
  }

  #share(): number {
    return this.#totalBytes === 0 ? 1 : this.#doneBytes / this.#totalBytes;
  }

  #details(nowMs: number): string {
    return `${formatBytes(this.#doneBytes)} of ${formatBytes(this.#totalBytes)}  ${formatBytes(Math.round(this.#rate(nowMs)))}/s`;
  }

  #left(nowMs: number): string {
    return formatDuration((this.#totalBytes - this.#doneBytes) / this.#rate(nowMs));
  }

  /** Bytes per second over the last seconds. */
  #rate(nowMs: number): number {
    const history = this.#history;
    const last = history.at(-1);
    if (last === undefined || nowMs - last.ms > redrawEveryMs)
      history.push({ ms: nowMs, bytes: this.#receivedBytes });
    while (history.length > 2 && nowMs - history[0].ms > rateWindowMs) history.shift();
    const seconds = Math.max(0.05, (nowMs - history[0].ms) / 1000);
    return Math.max(0, this.#receivedBytes - history[0].bytes) / seconds;
  }
}

function fileLine(name: string, { doneBytes, sizeBytes, isChecking }: Transfer, width: number): string {
  const share = sizeBytes === 0 ? 1 : doneBytes / sizeBytes;
  const right = ` ${bar(share)} ${isChecking ? "checking" : formatBytes(doneBytes).padStart(10)}`;
  const room = Math.max(10, width - right.length - 2);
  const shown =
    name.length > room ? `…${name.slice(name.length - room + 1)}` : name.padEnd(Math.min(room, 44));
  return `  ${shown}${right}`;
}
