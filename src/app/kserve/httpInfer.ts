/**
 * Inference requests and answers as HTTP bodies: a JSON header, and after it the raw bytes of those tensors whose parameter
 * `binary_data_size` says so. The length of the JSON travels in the HTTP header `Inference-Header-Content-Length`; without it the
 * whole body is JSON. Both directions, for server and client.
 * Sources: KServe, "Open Inference Protocol"; Triton, "Binary Tensor Data Extension".
 */
import { z } from "zod";
import { RequestError } from "../../base/index.ts";
import { type Datatype, isDatatype } from "./datatypes.ts";
import { decodeJson, encodeJson } from "./jsonTensor.ts";
import {
  type InferRequest,
  type InferResponse,
  type RequestedOutput,
  parseJson,
  parseMessage,
} from "./messages.ts";
import { decodeRaw, encodeRaw } from "./rawTensor.ts";
import type { Tensor } from "./tensor.ts";

const component = "infer";

/** Name of the HTTP header with the length of the JSON. */
export const headerLengthName = "Inference-Header-Content-Length";

const parametersSchema = z.record(z.string(), z.union([z.string(), z.number(), z.boolean()]));

const tensorSchema = z.looseObject({
  name: z.string().min(1),
  shape: z.array(z.int().nonnegative()).max(32),
  datatype: z.string(),
  parameters: parametersSchema.optional(),
  data: z.unknown().optional(),
});

const requestedOutputSchema = z.looseObject({
  name: z.string().min(1),
  parameters: parametersSchema.optional(),
});

// What Triton does not know it passes over, and so do we: clients of the field send keys of their own.
export const inferRequestSchema = z.looseObject({
  id: z.string().optional(),
  parameters: parametersSchema.optional(),
  inputs: z.array(tensorSchema).max(1024),
  outputs: z.array(requestedOutputSchema).max(1024).optional(),
});

export const inferResponseSchema = z.looseObject({
  model_name: z.string().default(""),
  model_version: z.string().default(""),
  id: z.string().optional(),
  parameters: parametersSchema.optional(),
  outputs: z.array(tensorSchema),
});

export interface HttpBody {
  bytes: Uint8Array;
  /** Bytes of the JSON before raw tensors; undefined: all of it is JSON. */
  headerLength: number | undefined;
}

/** The value of `Inference-Header-Content-Length` as a number. Throws RequestError when it is none, or more than the body. */
export function parseHeaderLength(text: string | undefined, bodyLength: number): number | undefined {
  if (text === undefined) return undefined;
  const length = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
  if (!(length <= bodyLength)) {
    throw new RequestError(
      component,
      `${headerLengthName}: expected a length of at most the body's ${bodyLength} bytes, got '${text}'`,
    );
  }
  return length;
}

/** Throws RequestError for everything that a client can get wrong. */
export function parseInferRequest(body: HttpBody): InferRequest {
  const { json, tail } = splitBody(body);
  const header = parseMessage(component, inferRequestSchema, json);
  const inputs = readTensors(header.inputs, tail);
  const byDefault = header.parameters?.["binary_data_output"];
  // Who sends raw tensors can read them; who sends plain JSON is answered in it, unless it says otherwise.
  const isBinary = typeof byDefault === "boolean" ? byDefault : body.headerLength !== undefined;
  const parameters = header.parameters ?? {};
  return {
    ...(header.id === undefined ? {} : { id: header.id }),
    parameters: { ...parameters, binary_data_output: isBinary },
    inputs,
    ...(header.outputs === undefined || header.outputs.length === 0
      ? {}
      : { outputs: header.outputs.map(readRequestedOutput) }),
  };
}

function readRequestedOutput(output: z.output<typeof requestedOutputSchema>): RequestedOutput {
  const { name, parameters = {} } = output;
  for (const parameter of ["shared_memory_region", "classification"]) {
    if (parameters[parameter] !== undefined) {
      throw new RequestError(component, `output '${name}': expected no '${parameter}', which is not offered`);
    }
  }
  const isBinary = parameters["binary_data"];
  if (isBinary !== undefined && typeof isBinary !== "boolean") {
    throw new RequestError(component, `output '${name}': expected true or false as 'binary_data'`);
  }
  return { name, ...(isBinary === undefined ? {} : { isBinary }) };
}

/** Throws RequestError when the answer is not of the protocol. */
export function parseInferResponse(body: HttpBody): InferResponse {
  const { json, tail } = splitBody(body);
  const header = parseMessage(component, inferResponseSchema, json);
  return {
    modelName: header.model_name,
    modelVersion: header.model_version,
    ...(header.id === undefined ? {} : { id: header.id }),
    ...(header.parameters === undefined ? {} : { parameters: header.parameters }),
    outputs: readTensors(header.outputs, tail),
  };
}

function splitBody({ bytes, headerLength }: HttpBody): { json: unknown; tail: Uint8Array } {
  const length = headerLength ?? bytes.length;
  return { json: parseJson(component, bytes.subarray(0, length)), tail: bytes.subarray(length) };
}

function readTensors(headers: readonly z.output<typeof tensorSchema>[], tail: Uint8Array): Tensor[] {
  let offset = 0;
  const tensors = headers.map((header): Tensor => {
    const { name, shape, parameters = {}, data } = header;
    const datatype = readDatatype(name, header.datatype);
    if (parameters["shared_memory_region"] !== undefined) {
      throw new RequestError(
        component,
        `'${name}': expected the tensor in the request, got a region of shared memory, which is not offered`,
      );
    }
    const size = parameters["binary_data_size"];
    if (size === undefined) return decodeJson({ name, datatype, shape, data });
    if (data !== undefined) {
      throw new RequestError(component, `'${name}': expected 'data' or 'binary_data_size', got both`);
    }
    if (typeof size !== "number" || !Number.isSafeInteger(size) || size < 0 || size > tail.length - offset) {
      throw new RequestError(
        component,
        `'${name}': expected a binary_data_size of at most the ${tail.length - offset} bytes left, got ${size}`,
      );
    }
    const bytes = tail.subarray(offset, offset + size);
    offset += size;
    return decodeRaw({ name, datatype, shape, bytes });
  });
  if (offset !== tail.length) {
    throw new RequestError(
      component,
      `expected ${offset} bytes of tensors after the JSON, got ${tail.length}`,
      {
        hint: "the sum of all binary_data_size",
      },
    );
  }
  return tensors;
}

export function readDatatype(name: string, datatype: string): Datatype {
  if (isDatatype(datatype)) return datatype;
  throw new RequestError(
    component,
    `'${name}': expected a datatype such as BYTES, INT64 or FP32, got '${datatype}'`,
  );
}

/** The body of a request, tensors raw, outputs asked for in raw form. */
export function encodeInferRequest(request: InferRequest): HttpBody {
  const { id, parameters, inputs, outputs } = request;
  return joinBody(
    {
      ...(id === undefined ? {} : { id }),
      ...(Object.keys(parameters).length === 0 ? {} : { parameters }),
    },
    "inputs",
    inputs.map((tensor) => ({ tensor, isBinary: true })),
    outputs === undefined
      ? {}
      : { outputs: outputs.map(({ name }) => ({ name, parameters: { binary_data: true } })) },
  );
}

/** The body of an answer; `isBinary` says of each output whether it goes as raw bytes. */
export function encodeInferResponse(response: InferResponse, isBinary: (name: string) => boolean): HttpBody {
  const { modelName, modelVersion, id, parameters, outputs } = response;
  return joinBody(
    {
      model_name: modelName,
      model_version: modelVersion,
      ...(id === undefined ? {} : { id }),
      ...(parameters === undefined ? {} : { parameters }),
    },
    "outputs",
    outputs.map((tensor) => ({ tensor, isBinary: isBinary(tensor.name) })),
    {},
  );
}

function joinBody(
  start: object,
  key: "inputs" | "outputs",
  tensors: readonly { tensor: Tensor; isBinary: boolean }[],
  end: object,
): HttpBody {
  const raw = tensors.map(({ tensor, isBinary }) => (isBinary ? encodeRaw(tensor) : undefined));
  const headers = tensors.map(({ tensor }, index) => {
    const { name, datatype, shape } = tensor;
    const bytes = raw[index];
    if (bytes === undefined) return { name, datatype, shape, data: encodeJson(tensor) };
    return { name, datatype, shape, parameters: { binary_data_size: bytes.length } };
  });
  const json = Buffer.from(JSON.stringify({ ...start, [key]: headers, ...end }));
  const tails = raw.filter((bytes) => bytes !== undefined);
  if (tails.length === 0) return { bytes: json, headerLength: undefined };
  return { bytes: Buffer.concat([json, ...tails]), headerLength: json.length };
}
