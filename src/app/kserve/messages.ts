/** What a request for inference and its answer are, whatever carries them: HTTP with JSON, HTTP with binary tensors, gRPC. */
import { ConfigError, RequestError, parseConfig } from "../../base/index.ts";
import type { z } from "zod";
import type { Tensor } from "./tensor.ts";

/** Values of `parameters`. */
export type ParameterValue = string | number | boolean;
export type Parameters = Readonly<Record<string, ParameterValue>>;

export interface RequestedOutput {
  name: string;
  /** Raw bytes rather than JSON; undefined: as the request says for all. */
  isBinary?: boolean;
}

export interface InferRequest {
  id?: string;
  parameters: Parameters;
  inputs: readonly Tensor[];
  /** Undefined: what the model gives by itself. */
  outputs?: readonly RequestedOutput[];
}

export interface InferResponse {
  modelName: string;
  modelVersion: string;
  id?: string;
  parameters?: Parameters;
  outputs: readonly Tensor[];
}

/** `parseConfig` for what came over the network. Throws RequestError. */
export function parseMessage<Schema extends z.ZodType>(
  component: string,
  schema: Schema,
  value: unknown,
): z.output<Schema> {
  try {
    return parseConfig(component, schema, value);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    // The message is a whole sentence already; only its class differs.
    const sentence = error.message.slice(`[${error.component}] `.length);
    throw new RequestError(component, sentence, { cause: error });
  }
}

/** Parsed JSON of `bytes`. Throws RequestError for bytes that are not UTF-8 and for what is no JSON. */
export function parseJson(component: string, bytes: Uint8Array): unknown {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new RequestError(component, "expected JSON in UTF-8, got bytes that are not", { cause });
  }
  try {
    return JSON.parse(text);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : "";
    throw new RequestError(component, `expected JSON, got: ${reason.slice(0, 200)}`, { cause });
  }
}
