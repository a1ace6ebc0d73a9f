/** A client of streamed completions that keeps time, and how times are told: what the benchmarks of the server share. */
import { request } from "node:http";
import type { Agent } from "node:http";

const answerLimitMs = 300_000;

export interface Timing {
  startMs: number;
  firstMs: number | undefined;
  gapsMs: number[];
  endMs: number;
  status: number;
  isWhole: boolean;
  /** Events that came. */
  numTokens: number;
  /** Tokens by the server's own count, where it was asked for usage. */
  numCounted: number | undefined;
}

export function startTiming(): Timing {
  return {
    startMs: performance.now(),
    firstMs: undefined,
    gapsMs: [],
    endMs: 0,
    status: 0,
    isWhole: false,
    numTokens: 0,
    numCounted: undefined,
  };
}

/** One streamed completion over a connection of `agent`. Every event is counted as one token. */
export function ask(url: string, agent: Agent, body: object): Promise<Timing> {
  const timing = startTiming();
  return new Promise((resolve) => {
    const end = (): void => {
      timing.endMs = performance.now();
      resolve(timing);
    };
    const text = JSON.stringify(body);
    const headers = { "content-type": "application/json", "content-length": Buffer.byteLength(text) };
    const asked = request(`${url}/v1/completions`, {
      method: "POST",
      agent,
      headers,
      timeout: answerLimitMs,
    });
    asked.on("response", (answer) => {
      timing.status = answer.statusCode ?? 0;
      let lastMs: number | undefined;
      answer.setEncoding("utf8");
      answer.on("data", (chunk: string) => {
        const nowMs = performance.now();
        timing.firstMs ??= nowMs;
        if (lastMs !== undefined) timing.gapsMs.push(nowMs - lastMs);
        lastMs = nowMs;
        timing.numTokens += chunk.split("\n\n").length - 1;
        const counted = /"completion_tokens":(\d+)/.exec(chunk);
        if (counted !== null) timing.numCounted = Number(counted[1]);
        if (
          chunk.includes("[DONE]") ||
          answer.headers["content-type"]?.startsWith("application/json") === true
        )
          timing.isWhole = true;
      });
      answer.on("end", end);
      answer.on("error", end);
    });
    asked.on("error", end);
    asked.end(text);
  });
}

export function percentile(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? NaN;
}
