/** A conversion from opening to verified result. Synchronous inside: it runs in a worker thread, so that Ctrl-C can end it. */
import { basename, dirname, resolve } from "node:path";
import { invariant, makeFolder, warn } from "../../../base/index.ts";
import { observedView } from "../../../checkpoint/index.ts";
import type { StoredDtype, TensorSource } from "../../../checkpoint/index.ts";
import { checkOutput, replaceAtomically } from "./output.ts";
import { openSource } from "./source.ts";
import type { ConversionSource, WeightDtype } from "./source.ts";
import { verifyConversion } from "./verify.ts";
import { writeArchive, writeFolder } from "./writers.ts";

export type ConversionTarget = "hf" | "nemo";

export interface ConversionRequest {
  source: string;
  target: string;
  format: ConversionTarget;
  dtype: WeightDtype | undefined;
  maxShardBytes: number | undefined;
  license: string | undefined;
  baseModel: string | undefined;
  verifies: boolean;
  isForced: boolean;
}

export interface ConversionOutcome {
  family: string;
  dtype: StoredDtype;
  numTensors: number;
  numBytes: number;
}

export interface ConversionProgress {
  /** "writing", "verifying" */
  label: string;
  doneBytes: number;
  totalBytes: number;
  /** The tensor at hand. */
  name: string;
}

/** Throws CheckpointError, ConfigError, FileError; the target then holds what it held before. */
export async function runConversion(
  request: ConversionRequest,
  onProgress: (progress: ConversionProgress) => void,
): Promise<ConversionOutcome> {
  const { target, format, isForced } = request;
  makeFolder("convert", dirname(resolve(target)));
  let outcome: ConversionOutcome | undefined;
  await replaceAtomically(target, async ({ temporary, scratch }) => {
    // A gzipped source is unpacked where the result goes: there must be room for as much anyway.
    using source = await openSource(request.source, { dtype: request.dtype, temporaryFolder: scratch });
    const totalBytes = sizeOf(source.weights);
    checkOutput({ path: target, isForced, numBytes: totalBytes });
    warnOfLicense(source, request);
    const watch = (label: string): TensorSource => {
      let doneBytes = 0;
      return observedView(source.weights, (name, byteLength) => {
        doneBytes += byteLength;
        onProgress({ label, doneBytes, totalBytes, name });
      });
    };
    const card = { license: request.license, baseModel: request.baseModel };
    const labels = { card, title: basename(target, ".nemo") };
    const weights = watch("writing");
    if (format === "nemo") writeArchive(source, weights, { path: temporary, labels });
    else writeFolder(source, weights, { folder: temporary, labels, maxShardBytes: request.maxShardBytes });
    if (request.verifies) await verifyConversion({ ...source, weights: watch("verifying") }, temporary);
    const numTensors = [...source.weights.names()].length;
    outcome = { family: source.config.family, dtype: source.dtype, numTensors, numBytes: totalBytes };
  });
  invariant(outcome !== undefined, "a conversion that ended has an outcome");
  return outcome;
}

function sizeOf(weights: TensorSource): number {
  return [...weights.names()].reduce((total, name) => total + weights.info(name).byteLength, 0);
}

function warnOfLicense({ checkpoint }: ConversionSource, { license }: ConversionRequest): void {
  if (license === undefined && checkpoint.card?.license === undefined) {
    warn(`${checkpoint.path} names no license: the model card says "unknown" (name it with --license)`);
  }
}
