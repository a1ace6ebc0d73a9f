/** What the converting thread says to the one that waits for it, and errors in a form that survives the way. */
import {
  CheckpointError,
  ConfigError,
  FileError,
  InvariantError,
  messageOf,
  NautilusError,
  TokenizerError,
} from "../../../base/index.ts";
import type { LogLevel } from "../../../base/index.ts";
import type { ConversionOutcome, ConversionProgress } from "./job.ts";

/** An error as plain data; without `code` it is a fault that is not the user's. */
export interface Failure {
  code: string | undefined;
  component: string;
  message: string;
  stack: string;
}

export type WorkerMessage =
  | { kind: "progress"; progress: ConversionProgress }
  | { kind: "log"; level: LogLevel; text: string }
  | { kind: "done"; outcome: ConversionOutcome }
  | { kind: "failed"; failure: Failure };

export function describeFailure(error: unknown): Failure {
  const isOurs = error instanceof NautilusError;
  return {
    code: isOurs ? error.code : undefined,
    component: isOurs ? error.component : "convert",
    message: messageOf(error),
    stack: error instanceof Error ? (error.stack ?? "") : "",
  };
}

const classes = new Map(
  [CheckpointError, ConfigError, FileError, TokenizerError].map((Class) => [
    new Class("", "").code as string,
    Class,
  ]),
);

/** The error again, of its class, with its sentence; the worker's stack is its cause. */
export function failureError({ code, component, message, stack }: Failure): Error {
  if (code === undefined) return new InvariantError(`a conversion failed: ${message}\n${stack}`);
  const Class = classes.get(code) ?? CheckpointError;
  return new Class(component, message.replace(`[${component}] `, ""), { cause: stack });
}
