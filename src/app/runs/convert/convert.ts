/** `nautilus convert`: a checkpoint of any format as another, a piece of a tensor at a time, in a thread that Ctrl-C can end. */
import { extname, resolve } from "node:path";
import { Worker } from "node:worker_threads";
import { ConfigError, failureError, formatBytes, note, warn, countOf } from "../../../base/index.ts";
import { ProgressLine } from "../../terminal/progress.ts";
import { stopSignal } from "../../terminal/signals.ts";
import { findModel } from "../openModel.ts";
import type { ConversionOutcome, ConversionRequest, ConversionTarget } from "./job.ts";
import type { WorkerMessage } from "./messages.ts";
import { clearLeftovers } from "./output.ts";
import type { WeightDtype } from "./source.ts";

/** The verb's options. */
export interface ConvertCliOptions {
  to?: ConversionTarget;
  dtype?: WeightDtype;
  shardSize?: number;
  license?: string;
  baseModel?: string;
  verify?: boolean;
  force?: boolean;
  json?: boolean;
}

const interruptedExitCode = 130;
/** The worker's file: TypeScript in a checkout, JavaScript in an installed package. */
const workerUrl = new URL(import.meta.url.endsWith(".ts") ? "./worker.ts" : "./worker.js", import.meta.url);

export async function convertCommand(from: string, to: string, options: ConvertCliOptions): Promise<void> {
  const startMs = performance.now();
  const source = findModel(from);
  if (resolve(source) === resolve(to)) {
    throw new ConfigError("convert", `expected another place than the source, got ${to} for both`);
  }
  const request: ConversionRequest = {
    source,
    target: to,
    format: options.to ?? targetOf(to),
    dtype: options.dtype,
    maxShardBytes: options.shardSize,
    license: options.license,
    baseModel: options.baseModel,
    verifies: options.verify === true,
    isForced: options.force === true,
  };
  const outcome = await convertInWorker(request);
  if (outcome === undefined) {
    process.exitCode = interruptedExitCode;
    return;
  }
  report(request, { ...outcome, seconds: (performance.now() - startMs) / 1000 }, options.json === true);
}

/** Gives undefined when the user stopped it; nothing is left behind then. */
async function convertInWorker(request: ConversionRequest): Promise<ConversionOutcome | undefined> {
  using stop = stopSignal("stopping; nothing is written");
  const progress = new ProgressLine();
  const worker = new Worker(workerUrl, { workerData: request });
  const ended = new Promise<ConversionOutcome | undefined>((done, fail) => {
    worker.on("message", (message: WorkerMessage) => {
      if (message.kind === "done") done(message.outcome);
      else if (message.kind === "failed") fail(failureError(message.failure));
      else if (message.kind === "log") (message.level === "note" ? note : warn)(message.text);
      else {
        const { label, doneBytes, totalBytes, name } = message.progress;
        const details = `${formatBytes(doneBytes)} of ${formatBytes(totalBytes)}  ${name}`;
        progress.update(label, doneBytes / totalBytes, details);
        if (doneBytes >= totalBytes) progress.finish();
      }
    });
    worker.on("error", fail);
    // After another message this changes nothing.
    worker.on("exit", () => done(undefined));
    stop.signal.addEventListener("abort", () => void worker.terminate());
  });
  try {
    const outcome = await ended;
    if (outcome === undefined) clearLeftovers(request.target);
    return outcome;
  } finally {
    progress.clear();
    await worker.terminate();
  }
}

function targetOf(path: string): ConversionTarget {
  if (path.endsWith(".nemo")) return "nemo";
  if (extname(path) === "" || !/\.(gguf|safetensors|bin|pt|ckpt|tar)$/.test(path)) return "hf";
  throw new ConfigError("convert", `expected a folder or a .nemo to write, got ${path}`, {
    hint: "say what with --to hf or --to nemo",
  });
}

/** Prints what was written, for people or programs. */
function report(
  { target, format, verifies }: ConversionRequest,
  { family, dtype, numTensors, numBytes, seconds }: ConversionOutcome & { seconds: number },
  isJson: boolean,
): void {
  if (isJson) {
    const result = {
      path: target,
      format,
      family,
      dtype,
      numTensors,
      numBytes,
      seconds,
      isVerified: verifies,
    };
    process.stdout.write(`${JSON.stringify(result, undefined, 2)}\n`);
    return;
  }
  const rate = formatBytes(numBytes / Math.max(seconds, 1e-3));
  process.stdout.write(
    `${target}: ${countOf(numTensors, "tensor")} of ${family} in ${dtype}, ${formatBytes(numBytes)}, ${rate}/s${verifies ? ", verified" : ""}\n`,
  );
}
