/**
 * Typed errors with a grammar: `[component] expected …, got … (hint)`.
 *
 * A `NautilusError` is the user's to mend: the command line prints its one sentence and exits with `exitCode` (2).
 * `invariant` is for faults of our own. Nothing outside this file throws a bare `Error`.
 */
export interface ErrorDetails {
  /** What the user can do about it, without the parentheses. */
  hint?: string;
  cause?: unknown;
  /** Offending values, for programs. */
  fields?: Readonly<Record<string, unknown>>;
}

export class NautilusError extends Error {
  /** Stable code for programs, e.g. "shape". */
  readonly code: string = "error";
  readonly exitCode: number = 2;
  readonly component: string;
  readonly hint: string | undefined;
  readonly fields: Readonly<Record<string, unknown>>;

  constructor(component: string, message: string, details: ErrorDetails = {}) {
    super(`[${component}] ${message}${details.hint === undefined ? "" : ` (${details.hint})`}`, {
      cause: details.cause,
    });
    this.name = new.target.name;
    this.component = component;
    this.hint = details.hint;
    this.fields = details.fields ?? {};
  }
}

/** A recipe, option or configuration file says something that cannot be. */
export class ConfigError extends NautilusError {
  override readonly code = "config";
}
/** Shapes that do not fit together. */
export class ShapeError extends NautilusError {
  override readonly code = "shape";
}
/** A dtype that an operator or format does not take. */
export class DtypeError extends NautilusError {
  override readonly code = "dtype";
}
/** A native call failed, or a device or library is missing. */
export class DeviceError extends NautilusError {
  override readonly code: string = "device";
}
/** The device has no room; `hint` says what to change. */
export class OutOfMemoryError extends DeviceError {
  override readonly code = "out-of-memory";
}
/** A buffer or tensor was used after it was disposed. */
export class DisposedError extends NautilusError {
  override readonly code = "disposed";
}
/** The backend has no kernel for this operator and dtype. */
export class UnsupportedOpError extends NautilusError {
  override readonly code = "unsupported-op";
}
/** A checkpoint or tensor file is missing, broken or of another model. */
export class CheckpointError extends NautilusError {
  override readonly code = "checkpoint";
}
/** Input data (text, JSON lines, token files) is missing or broken. */
export class DataError extends NautilusError {
  override readonly code = "data";
}
/** A tokenizer file or a text it is given cannot be used. */
export class TokenizerError extends NautilusError {
  override readonly code = "tokenizer";
}
/** The disk refused: missing, full, read-only. */
export class FileError extends NautilusError {
  override readonly code = "file";
}

/** A model hub refused, could not be reached, or gave what was not asked for. */
export class HubError extends NautilusError {
  override readonly code: string = "hub";
}

/** A request to a running model asks for what cannot be: servers answer 400. */
export class RequestError extends NautilusError {
  override readonly code = "request";
}
/** The engine died under a request: servers answer 503. */
export class EngineFailedError extends NautilusError {
  override readonly code = "engine-failed";
  override readonly exitCode = 1;
}

/** Throws when something that our own code guarantees does not hold. */
export function invariant(condition: unknown, message: string): asserts condition {
  if (!condition) throw new InvariantError(message);
}

/** A fault of Nautilus itself, never of its user. */
export class InvariantError extends Error {
  override readonly name = "InvariantError";
  constructor(message: string) {
    super(`${message} (this is a bug in Nautilus)`);
  }
}

/** The message of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The `code` of a Node system error ("ENOENT", …), or undefined. */
export function systemErrorCode(error: unknown): string | undefined {
  // Our own errors have codes too, but nothing of the system in them.
  if (error instanceof NautilusError) return undefined;
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : undefined;
}
