/**
 * Load on a server of this machine: requests with ShareGPT's mean lengths (161 tokens in, 338 out: Kwon et al., "Efficient memory
 * management for large language model serving with PagedAttention", SOSP 2023, figure 11), log-normal about them, arriving by a Poisson
 * process; many connections at once; and what HTTP costs by itself.
 *
 *   node bench/serve.ts overhead                                  a server with an instant engine
 *   node bench/serve.ts connections [--count 2000]
 *   node bench/serve.ts streams [--count 256] [--step-ms 15]      tokens a second through HTTP; with --step-ms of an engine in its thread
 *   node bench/serve.ts load --url http://127.0.0.1:8000 [--rate 4] [--requests 100] [--scale 0.25] [--closed 16]
 *
 * Loopback only; counts and times are bounded.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { Agent } from "node:http";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";
import { ConfigError, RandomStream } from "../src/base/index.ts";
import { ask, percentile } from "./serve-client.ts";
import type { Timing } from "./serve-client.ts";

const meanPromptTokens = 161;
const meanAnswerTokens = 338;
/** Of the logarithm: long tails, as conversations have. */
const spread = 1;
const mostRequests = 20_000;

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    url: { type: "string" },
    rate: { type: "string", default: "4" },
    requests: { type: "string", default: "100" },
    scale: { type: "string", default: "1" },
    closed: { type: "string" },
    count: { type: "string" },
    "step-ms": { type: "string" },
  },
});

function line(name: string, times: readonly number[]): string {
  const sorted = times.toSorted((a, b) => a - b);
  const shown = [0.5, 0.9, 0.99].map((share) => percentile(sorted, share).toFixed(2).padStart(9));
  return `${name.padEnd(16)} p50 ${shown[0]}  p90 ${shown[1]}  p99 ${shown[2]} ms   (${times.length})`;
}

/** Counts in buckets that double. */
function histogram(name: string, times: readonly number[]): string {
  const counts = new Map<number, number>();
  for (const ms of times) {
    const bucket = Math.max(-3, Math.floor(Math.log2(Math.max(ms, 1e-3))));
    counts.set(bucket, (counts.get(bucket) ?? 0) + 1);
  }
  const most = Math.max(1, ...counts.values());
  const rows = [...counts]
    .toSorted(([a], [b]) => a - b)
    .map(([bucket, count]) => {
      const bar = "#".repeat(Math.ceil((40 * count) / most));
      return `  < ${(2 ** (bucket + 1)).toString().padStart(8)} ms ${String(count).padStart(7)} ${bar}`;
    });
  return [`${name}:`, ...rows].join("\n");
}

function report(timings: readonly Timing[]): void {
  const good = timings.filter(({ status, isWhole }) => status === 200 && isWhole);
  const first = good.map(({ firstMs, startMs }) => (firstMs ?? NaN) - startMs);
  const gaps = good.flatMap(({ gapsMs }) => gapsMs);
  const numTokens = good.reduce((total, timing) => total + timing.numTokens, 0);
  const seconds =
    (Math.max(...timings.map(({ endMs }) => endMs)) - Math.min(...timings.map(({ startMs }) => startMs))) /
    1000;
  const statuses = Map.groupBy(timings, ({ status, isWhole }) => (isWhole ? status : `${status}, cut off`));
  console.log(
    `answers          ${[...statuses].map(([status, all]) => `${status}: ${all.length}`).join("; ")}`,
  );
  console.log(`output           ${(numTokens / seconds).toFixed(1)} events/s over ${seconds.toFixed(1)} s`);
  console.log(line("first token", first));
  console.log(line("between tokens", gaps));
  console.log(histogram("first token", first));
  console.log(histogram("between tokens", gaps));
  if (good.length < timings.length) process.exitCode = 1;
}

function checkUrl(url: string | undefined): string {
  const host = url === undefined ? undefined : new URL(url).hostname;
  if (url !== undefined && (host === "127.0.0.1" || host === "localhost" || host === "[::1]")) return url;
  throw new ConfigError("bench", `expected --url of this machine, got ${url ?? "none"}`);
}

/** Log-normal with a given mean. */
function lengthOf(random: RandomStream, mean: number): number {
  return Math.max(1, Math.round(Math.exp(Math.log(mean) - spread ** 2 / 2 + spread * random.nextNormal())));
}

async function load(): Promise<void> {
  const url = checkUrl(values.url);
  const numRequests = Math.min(mostRequests, Number(values.requests));
  const scale = Number(values.scale);
  const random = new RandomStream(1);
  const agent = new Agent({ keepAlive: true, maxSockets: Infinity });
  const bodies = Array.from({ length: numRequests }, () => ({
    prompt: Array.from({ length: lengthOf(random, meanPromptTokens * scale) }, () => 4 + random.nextInt(250)),
    max_tokens: lengthOf(random, meanAnswerTokens * scale),
    ignore_eos: true,
    stream: true,
    logprobs: 0,
  }));
  const timings: Timing[] = [];
  if (values.closed === undefined) {
    const running: Promise<void>[] = [];
    for (const body of bodies) {
      running.push(ask(url, agent, body).then((timing) => void timings.push(timing)));
      await delay((-Math.log(1 - random.nextFloat()) / Number(values.rate)) * 1000);
    }
    await Promise.all(running);
  } else {
    const clients = Array.from({ length: Number(values.closed) }, async () => {
      for (let body = bodies.pop(); body !== undefined; body = bodies.pop())
        timings.push(await ask(url, agent, body));
    });
    await Promise.all(clients);
  }
  agent.destroy();
  const arrivals = values.closed === undefined ? `${values.rate} a second` : `${values.closed} at a time`;
  console.log(`${numRequests} requests, ${arrivals}, lengths times ${scale}`);
  report(timings);
}

async function withFakeServer(
  tokenMs: number,
  body: (url: string) => Promise<void>,
  place = "here",
): Promise<void> {
  const child = spawn(
    process.execPath,
    [new URL("serve-fake.ts", import.meta.url).pathname, String(tokenMs), place],
    {
      stdio: ["ignore", "pipe", "inherit"],
    },
  );
  try {
    const [url] = (await once(createInterface(child.stdout), "line")) as [string];
    await body(url);
  } finally {
    child.kill("SIGTERM");
  }
}

/** Connections that are all open at once, each with a stream of twenty tokens. */
async function connections(): Promise<void> {
  const count = Math.min(mostRequests, Number(values.count ?? "2000"));
  await withFakeServer(200, async (url) => {
    const agent = new Agent({ keepAlive: true, maxSockets: Infinity });
    const body = { prompt: [4, 5, 6], max_tokens: 20, ignore_eos: true, stream: true };
    const timings = await Promise.all(Array.from({ length: count }, () => ask(url, agent, body)));
    agent.destroy();
    console.log(`${count} connections at once, an engine of one token each 200 ms`);
    report(timings);
  });
}

/** One connection, one token: a whole request beside GET /health, which does nothing. */
async function overhead(): Promise<void> {
  await withFakeServer(0, async (url) => {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    const body = { prompt: [4, 5, 6], max_tokens: 1, ignore_eos: true };
    const times: number[] = [];
    for (let i = 0; i < 3000; i++) {
      const { startMs, endMs } = await ask(url, agent, body);
      if (i >= 1000) times.push(endMs - startMs);
    }
    agent.destroy();
    console.log("one-token completions through HTTP, engine instant; client and server share the machine");
    console.log(line("whole request", times));
  });
}

/**
 * Streams all at once: of an instant engine, what the server can write; of one that takes its time in a thread, whether the server keeps
 * up; and what of the server's processor time, all threads, a token takes.
 */
async function streams(): Promise<void> {
  const count = Math.min(mostRequests, Number(values.count ?? "256"));
  const stepMs = Number(values["step-ms"] ?? 0);
  const measure = async (url: string): Promise<void> => {
    const agent = new Agent({ keepAlive: true, maxSockets: Infinity });
    const body = { prompt: [4, 5, 6], max_tokens: 512, ignore_eos: true, stream: true };
    const round = () => Promise.all(Array.from({ length: count }, () => ask(url, agent, body)));
    await round();
    const before = await cpuSeconds(url);
    const timings = await round();
    const used = (await cpuSeconds(url)) - before;
    agent.destroy();
    const numTokens = timings.reduce((total, timing) => total + timing.numTokens, 0);
    console.log(`${count} streams of 512 tokens at once; client and server share the machine`);
    console.log(`server           ${((used / numTokens) * 1e6).toFixed(1)} us of processor time a token`);
    report(timings);
  };
  await withFakeServer(stepMs, measure, stepMs > 0 ? "thread" : "here");
}

/** Processor time that a server has used, by its own metrics. */
async function cpuSeconds(url: string): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text();
  return Number(/^nautilus_process_cpu_seconds_total (\S+)$/m.exec(text)?.[1]);
}

const modes: Record<string, () => Promise<void>> = { load, connections, overhead, streams };
const mode = modes[positionals[0] ?? ""];
if (mode === undefined) {
  console.error(`[bench] expected load, connections, overhead or streams, got ${positionals[0] ?? "none"}`);
  process.exitCode = 2;
} else await mode();
