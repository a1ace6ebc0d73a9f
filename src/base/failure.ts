/** Errors in a form that survives the way between threads, and back. */
import {
  CheckpointError,
  ConfigError,
  DataError,
  DeviceError,
  DisposedError,
  DtypeError,
  EngineFailedError,
  FileError,
  HubError,
  InvariantError,
  messageOf,
  NautilusError,
  OutOfMemoryError,
  RequestError,
  ShapeError,
  TokenizerError,
  UnsupportedOpError,
} from "./errors.ts";

/** An error as plain data. `code` is undefined for a fault that is not the user's. */
export interface Failure {
  readonly code: string | undefined;
  readonly component: string;
  readonly message: string;
  readonly fields: Readonly<Record<string, unknown>>;
  readonly stack: string;
}

/** `component` stands for errors that name none. */
export function describeFailure(error: unknown, component: string): Failure {
  const isOurs = error instanceof NautilusError;
  return {
    code: isOurs ? error.code : undefined,
    component: isOurs ? error.component : component,
    message: messageOf(error),
    fields: isOurs ? error.fields : {},
    stack: error instanceof Error ? (error.stack ?? "") : "",
  };
}

type ErrorClass = new (
  component: string,
  message: string,
  details: { fields: Failure["fields"]; cause: unknown },
) => NautilusError;

const classes: ReadonlyMap<string, ErrorClass> = new Map<string, ErrorClass>([
  ["checkpoint", CheckpointError],
  ["config", ConfigError],
  ["data", DataError],
  ["device", DeviceError],
  ["disposed", DisposedError],
  ["dtype", DtypeError],
  ["engine-failed", EngineFailedError],
  ["file", FileError],
  ["hub", HubError],
  ["out-of-memory", OutOfMemoryError],
  ["request", RequestError],
  ["shape", ShapeError],
  ["tokenizer", TokenizerError],
  ["unsupported-op", UnsupportedOpError],
]);

/** The error again, of its class, with its sentence; the other thread's stack is its cause. */
export function failureError({ code, component, message, fields, stack }: Failure): Error {
  if (code === undefined) return new InvariantError(`a ${component} worker failed: ${message}\n${stack}`);
  const Class = classes.get(code) ?? NautilusError;
  const prefix = `[${component}] `;
  const sentence = message.startsWith(prefix) ? message.slice(prefix.length) : message;
  return new Class(component, sentence, { fields, cause: stack });
}
