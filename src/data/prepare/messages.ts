/** What the preparing thread and its workers say to each other, and errors in a form that survives the way. */
import {
  ConfigError,
  DataError,
  FileError,
  InvariantError,
  messageOf,
  NautilusError,
  TokenizerError,
} from "../../base/index.ts";
import type { EncoderSpec } from "../encoder.ts";
import type { RawUnit } from "../sources/unit.ts";
import type { EncodedUnit } from "./encodeUnit.ts";

export interface WorkerStart {
  readonly encoder: EncoderSpec;
}

export interface WorkerRequest {
  readonly id: number;
  readonly unit: RawUnit;
}

/** A failure before the first request has id -1. */
export type WorkerReply =
  | { readonly id: number; readonly encoded: EncodedUnit }
  | { readonly id: number; readonly failure: Failure };

/** An error as plain data. `code` is undefined for a fault that is not the user's. */
export interface Failure {
  readonly code: string | undefined;
  readonly component: string;
  readonly message: string;
  readonly stack: string;
}

export function describeFailure(error: unknown): Failure {
  const isOurs = error instanceof NautilusError;
  return {
    code: isOurs ? error.code : undefined,
    component: isOurs ? error.component : "data",
    message: messageOf(error),
    stack: error instanceof Error ? (error.stack ?? "") : "",
  };
}

const classes = { config: ConfigError, data: DataError, file: FileError, tokenizer: TokenizerError } as const;

/** The error again, of its class, with its sentence; the worker's stack is its cause. */
export function failureError(failure: Failure): Error {
  const { code, component, message, stack } = failure;
  const sentence = message.startsWith(`[${component}] `) ? message.slice(component.length + 3) : message;
  if (code === undefined) return new InvariantError(`a data worker failed: ${message}\n${stack}`);
  const Class = code in classes ? classes[code as keyof typeof classes] : DataError;
  return new Class(component, sentence, { cause: stack });
}
