/** Makes an encoder from what can be sent to a worker: in the worker itself, or for work on the calling thread. */
import { ConfigError, messageOf } from "../../base/index.ts";
import type { DocumentEncoder, EncoderSpec } from "../encoder.ts";

/** Throws ConfigError for a module that does not make encoders. */
export async function loadEncoder(spec: EncoderSpec): Promise<DocumentEncoder> {
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
