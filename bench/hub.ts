/**
 * Pulling from a hub on this machine: Nautilus, and where they are installed the official npm client and Python's. Says for each how
 * fast it is, whether two ends of a broken connection meet again, whether a wrong byte is noticed, and how many requests ran at once.
 *
 *     npm install --no-save @huggingface/hub && node bench/hub.ts [--mib 256] [--python /path/to/python]
 */
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { messageOf, RandomStream } from "../src/base/index.ts";
import { hubSettings, pullModel } from "../src/checkpoint/index.ts";
import { HubTestServer, largeFile, smallFile } from "../test/hub/server.ts";

const { values } = parseArgs({
  options: { mib: { type: "string", default: "256" }, python: { type: "string", default: "python3" } },
});
/** What a storage may give one connection. */
const slowBytesPerSecond = 20 << 20;
const fileBytes = (Number(values.mib) << 20) >> 1;
const random = new RandomStream(1);
const block = Buffer.from(Uint8Array.from({ length: 1 << 20 }, () => random.nextInt(256)));
const weights = (seed: number): Buffer => {
  const bytes = Buffer.concat(Array.from({ length: Math.ceil(fileBytes / block.byteLength) }, () => block));
  bytes[0] = seed;
  return bytes.subarray(0, fileBytes);
};

await using server = await HubTestServer.start();
const names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
server.models.set("sea/shell", {
  commit: "a".repeat(40),
  files: [smallFile("config.json", "{}"), ...names.map((name, i) => largeFile(name, weights(i)))],
});

type Pull = (cache: string) => Promise<unknown>;
const environment = (cache: string): Record<string, string> => ({
  HF_ENDPOINT: server.endpoint,
  HF_HUB_CACHE: cache,
  HF_HOME: cache,
  HF_HUB_DISABLE_XET: "1",
});

const clients = new Map<string, Pull>();
clients.set("nautilus", (cache) =>
  pullModel("sea/shell", { settings: { ...hubSettings(environment(cache)), retryDelayMs: 50 } }),
);

// By a name that the type checker does not resolve: it is no dependency.
const official = "@huggingface/hub";
try {
  const { snapshotDownload } = (await import(official)) as {
    snapshotDownload: (options: { repo: string; hubUrl: string; cacheDir: string }) => Promise<string>;
  };
  console.debug = () => undefined;
  clients.set(official, (cache) =>
    snapshotDownload({ repo: "sea/shell", hubUrl: server.endpoint, cacheDir: cache }),
  );
} catch {
  console.log(`${official} is not installed: left out`);
}
clients.set("huggingface_hub", (cache) => runPython(environment(cache)));

function runPython(env: Record<string, string>): Promise<void> {
  const program = `from huggingface_hub import snapshot_download; snapshot_download("sea/shell")`;
  const child = spawn(values.python, ["-c", program], {
    env: { ...process.env, ...env },
    stdio: ["ignore", "ignore", "pipe"],
  });
  let stderr = "";
  child.stderr.on("data", (piece: Buffer) => (stderr += piece.toString()));
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) =>
      code === 0 ? resolve() : reject(new Error(stderr.trim().split("\n").at(-1))),
    );
  });
}

/** Runs a pull into a new cache; "ok" or the error's message, and the seconds. */
async function attempt(
  pull: Pull,
  cache = mkdtempSync(join(tmpdir(), "nautilus-bench-")),
): Promise<{ outcome: string; seconds: number }> {
  const startMs = performance.now();
  try {
    await pull(cache);
    return { outcome: "ok", seconds: (performance.now() - startMs) / 1000 };
  } catch (error) {
    return { outcome: messageOf(error).slice(0, 100), seconds: (performance.now() - startMs) / 1000 };
  } finally {
    rmSync(cache, { recursive: true, force: true });
  }
}

const countRequests = (): number => {
  const ranges = names.flatMap((name) => server.rangesOf(name));
  return ranges.filter((range) => range !== "bytes=0-0").length;
};

for (const [name, pull] of clients) {
  const whole = await attempt(pull);
  server.mostAtOnce = 0;
  server.faults.bytesPerSecond = slowBytesPerSecond;
  const slow = await attempt(pull);
  server.faults.bytesPerSecond = Infinity;
  const atOnce = server.mostAtOnce;
  server.seen.length = 0;
  server.faults.breakAfter.set(names[1], { bytes: fileBytes >> 1, times: 1 });
  const broken = await attempt(pull);
  const resumed = server.rangesOf(names[1]).some((range) => range !== undefined && /=(?!0-)\d+/.test(range));
  server.faults.breakAfter.clear();
  const requests = countRequests();
  server.faults.corrupt.set(names[0], 1000);
  const corrupt = await attempt(pull);
  server.faults.corrupt.clear();
  console.log(name);
  console.log(
    `  ${values.mib} MiB: ${whole.outcome}, ${whole.seconds.toFixed(2)} s, ${(Number(values.mib) / whole.seconds).toFixed(0)} MiB/s; with 20 MiB/s per connection ${slow.outcome}, ${(Number(values.mib) / slow.seconds).toFixed(0)} MiB/s, ${atOnce} at once`,
  );
  console.log(
    `  connection broken once: ${broken.outcome}; asked for a later start: ${resumed ? "yes" : "no"} (${requests} requests)`,
  );
  console.log(
    `  every byte changed: ${corrupt.outcome === "ok" ? "not noticed" : `noticed (${corrupt.outcome})`}`,
  );
}
