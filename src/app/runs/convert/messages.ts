/** What the converting thread says to the one that waits for it. */
import type { Failure, LogLevel } from "../../../base/index.ts";
import type { ConversionOutcome, ConversionProgress } from "./job.ts";

export type WorkerMessage =
  | { kind: "progress"; progress: ConversionProgress }
  | { kind: "log"; level: LogLevel; text: string }
  | { kind: "done"; outcome: ConversionOutcome }
  | { kind: "failed"; failure: Failure };
