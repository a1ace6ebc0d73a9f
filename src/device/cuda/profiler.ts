/**
 * Where the GPU's time goes: an event before and after each operator, summed by name (or by shapes), with the time between
 * operators in which the GPU waited for the host. NAUTILUS_PROFILE: "ops", "shapes", or a file name ending in .json, which also
 * gets a timeline for chrome://tracing. Only active when that is set; costs about two microseconds of GPU time per operator.
 */
import { note, warn, writeText } from "../../base/index.ts";
import type { CudaSession } from "./session.ts";

/** Pending pairs of events after which they are read. */
const flushLength = 8192;

interface Span {
  readonly label: string;
  readonly start: number;
  readonly end: number;
  readonly hostMs: number;
  /** Work in the operator, for the rate column. */
  readonly flops: number;
}

interface Total {
  count: number;
  gpuMs: number;
  hostMs: number;
  flops: number;
}

/** What there was between the first and the last operator of the report, in milliseconds. */
export interface ProfileSummary {
  readonly wallMs: number;
  readonly busyMs: number;
  readonly totals: ReadonlyMap<string, Readonly<Total>>;
}

export class Profiler {
  readonly byShape: boolean;
  readonly #session: CudaSession;
  readonly #tracePath: string | undefined;
  readonly #totals = new Map<string, Total>();
  readonly #spans: Span[] = [];
  readonly #events: number[] = [];
  readonly #trace: string[] = [];
  #wallMs = 0;
  #busyMs = 0;

  constructor(session: CudaSession, mode: string) {
    this.#session = session;
    this.#tracePath = mode.endsWith(".json") ? mode : undefined;
    this.byShape = mode === "shapes" || this.#tracePath !== undefined;
    process.once("exit", this.#atExit);
  }

  /** The profiler that NAUTILUS_PROFILE asks for. */
  static fromEnvironment(session: CudaSession): Profiler | undefined {
    const mode = process.env["NAUTILUS_PROFILE"];
    return mode === undefined || mode === "" || mode === "0" ? undefined : new Profiler(session, mode);
  }

  measure(label: string, flops: number, queue: () => void): void {
    const start = this.#mark();
    const before = performance.now();
    queue();
    const hostMs = performance.now() - before;
    this.#spans.push({ label, start, end: this.#mark(), hostMs, flops });
    if (this.#spans.length >= flushLength) this.flush();
  }

  /** Waits for the device and adds up what is pending. */
  flush(): void {
    const [first] = this.#spans;
    if (first === undefined) return;
    this.#session.synchronize();
    let previousEndMs = 0;
    for (const { label, start, end, hostMs, flops } of this.#spans) {
      const startMs = this.#session.elapsedMs(first.start, start);
      const endMs = this.#session.elapsedMs(first.start, end);
      const total = this.#totals.get(label) ?? { count: 0, gpuMs: 0, hostMs: 0, flops: 0 };
      this.#totals.set(label, total);
      total.count++;
      total.gpuMs += endMs - startMs;
      total.hostMs += hostMs;
      total.flops += flops;
      this.#busyMs += endMs - startMs;
      previousEndMs = endMs;
      if (this.#tracePath !== undefined)
        this.#trace.push(
          JSON.stringify({
            name: label,
            ph: "X",
            pid: 0,
            tid: 0,
            ts: (this.#wallMs + startMs) * 1000,
            dur: (endMs - startMs) * 1000,
          }),
        );
    }
    this.#wallMs += previousEndMs;
    for (const { start, end } of this.#spans) this.#events.push(start, end);
    this.#spans.length = 0;
  }

  summary(): ProfileSummary {
    this.flush();
    return { wallMs: this.#wallMs, busyMs: this.#busyMs, totals: this.#totals };
  }

  /** Forgets what was measured so far, such as the first, compiling step. */
  reset(): void {
    this.flush();
    this.#totals.clear();
    this.#trace.length = 0;
    this.#wallMs = 0;
    this.#busyMs = 0;
  }

  /** Prints the table and writes the timeline; then starts anew. */
  report(): void {
    const { wallMs, busyMs, totals } = this.summary();
    if (totals.size === 0) return;
    note(formatProfile({ wallMs, busyMs, totals }));
    if (this.#tracePath !== undefined) writeText("cuda", this.#tracePath, `[${this.#trace.join(",\n")}]\n`);
    this.reset();
  }

  /** Reports what is left; never throws. */
  dispose(): void {
    process.off("exit", this.#atExit);
    this.#atExit();
    for (const event of this.#events) this.#session.functions.cuEventDestroy_v2(event);
    this.#events.length = 0;
  }

  readonly #atExit = (): void => {
    try {
      this.report();
    } catch (error) {
      warn(`no profile: ${String(error)}`);
    }
  };

  #mark(): number {
    const event = this.#events.pop() ?? this.#session.createEvent(true);
    const { functions, stream } = this.#session;
    this.#session.check("cuEventRecord", functions.cuEventRecord(event, stream));
    return event;
  }
}

/** The table: one line per operator, most time first, then how long the GPU had nothing to do. */
export function formatProfile({ wallMs, busyMs, totals }: ProfileSummary): string {
  const rows = [...totals].sort(([, a], [, b]) => b.gpuMs - a.gpuMs);
  const width = Math.max(10, ...rows.map(([label]) => label.length));
  const line = (label: string, cells: readonly string[]): string =>
    `${label.padEnd(width)} ${cells.map((cell) => cell.padStart(10)).join(" ")}`;
  const share = (ms: number): string => `${((100 * ms) / wallMs).toFixed(1)} %`;
  const idleMs = wallMs - busyMs;
  return [
    line("GPU time", ["calls", "ms", "share", "us/call", "TFLOP/s", "host us"]),
    ...rows.map(([label, { count, gpuMs, hostMs, flops }]) =>
      line(label, [
        String(count),
        gpuMs.toFixed(2),
        share(gpuMs),
        ((1000 * gpuMs) / count).toFixed(1),
        flops > 0 ? (flops / gpuMs / 1e9).toFixed(1) : "",
        ((1000 * hostMs) / count).toFixed(1),
      ]),
    ),
    line("idle", ["", idleMs.toFixed(2), share(idleMs)]),
    line("in all", ["", wallMs.toFixed(2), share(wallMs)]),
  ].join("\n");
}
