/** Makes an encoder from what can be sent to a worker: in the worker itself, or for work on the calling thread. */
import { statSync } from "node:fs";
import { join } from "node:path";
import { ConfigError, messageOf, sha256File, withFileErrors } from "../../base/index.ts";
import { loadTokenizer } from "../../text/index.ts";
import type { DocumentEncoder, EncoderSpec } from "../encoder.ts";

/** Throws ConfigError for a module that does not make encoders; FileError and TokenizerError as loadTokenizer. */
export async function loadEncoder(spec: EncoderSpec): Promise<DocumentEncoder> {
  if ("tokenizerPath" in spec) return loadTokenizer(spec.tokenizerPath);
  let module: unknown;
  try {
    module = await import(spec.module);
  } catch (error) {
    throw new ConfigError("data", `expected an encoder module at ${spec.module}, got ${messageOf(error)}`, {
      cause: error,
    });
  }
  if (hasCreateEncoder(module)) return module.createEncoder(spec.options);
  throw new ConfigError("data", `expected a module that exports createEncoder at ${spec.module}, got none`);
}

/** What tells one tokenizer from another: the sha256 of its tokenizer.json. Throws FileError. */
export function tokenizerSha256(tokenizerPath: string): string {
  const isFolder = withFileErrors("data", "a tokenizer", tokenizerPath, () =>
    statSync(tokenizerPath).isDirectory(),
  );
  return sha256File("data", isFolder ? join(tokenizerPath, "tokenizer.json") : tokenizerPath);
}

interface CreatesEncoder {
  createEncoder(options: unknown): DocumentEncoder | Promise<DocumentEncoder>;
}

function hasCreateEncoder(module: unknown): module is CreatesEncoder {
  return (
    typeof module === "object" &&
    module !== null &&
    "createEncoder" in module &&
    typeof module.createEncoder === "function"
  );
}
