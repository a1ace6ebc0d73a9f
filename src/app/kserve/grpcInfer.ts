/** Inference requests and answers as messages of the gRPC service, both directions, for server and client. */
import { z } from "zod";
import { RequestError } from "../../base/index.ts";
import { type Datatype, type NumericDatatype, zeros } from "./datatypes.ts";
import type { Message } from "./grpcService.ts";
import { readDatatype } from "./httpInfer.ts";
import {
  type InferRequest,
  type InferResponse,
  type ParameterValue,
  type Parameters,
  parseMessage,
} from "./messages.ts";
import { decodeRaw, encodeRaw } from "./rawTensor.ts";
import { type Tensor, component as tensorComponent, countElements } from "./tensor.ts";

const component = "infer";

// 64-bit integers arrive as decimal strings.
const longSchema = z.union([z.string(), z.number()]).transform(Number);
const parameterSchema = z.looseObject({
  parameter_choice: z.string().optional(),
  bool_param: z.boolean().optional(),
  int64_param: longSchema.optional(),
  uint64_param: longSchema.optional(),
  double_param: z.number().optional(),
  string_param: z.string().optional(),
});
const parametersSchema = z.record(z.string(), parameterSchema).default({});

const contentsSchema = z.looseObject({
  bool_contents: z.array(z.boolean()).default([]),
  int_contents: z.array(z.number()).default([]),
  int64_contents: z.array(z.string()).default([]),
  uint_contents: z.array(z.number()).default([]),
  uint64_contents: z.array(z.string()).default([]),
  fp32_contents: z.array(z.number()).default([]),
  fp64_contents: z.array(z.number()).default([]),
  bytes_contents: z.array(z.instanceof(Uint8Array)).default([]),
});
type Contents = z.output<typeof contentsSchema>;

const tensorSchema = z.looseObject({
  name: z.string(),
  datatype: z.string(),
  shape: z.array(longSchema).default([]),
  parameters: parametersSchema,
  contents: contentsSchema.nullish(),
});

const requestSchema = z.looseObject({
  model_name: z.string(),
  model_version: z.string().default(""),
  id: z.string().default(""),
  parameters: parametersSchema,
  inputs: z.array(tensorSchema).default([]),
  outputs: z.array(z.looseObject({ name: z.string(), parameters: parametersSchema })).default([]),
  raw_input_contents: z.array(z.instanceof(Uint8Array)).default([]),
});

const responseSchema = z.looseObject({
  model_name: z.string().default(""),
  model_version: z.string().default(""),
  id: z.string().default(""),
  parameters: parametersSchema,
  outputs: z.array(tensorSchema).default([]),
  raw_output_contents: z.array(z.instanceof(Uint8Array)).default([]),
});

export interface GrpcInferRequest extends InferRequest {
  modelName: string;
  modelVersion: string;
}

/** Throws RequestError for everything that a client can get wrong. */
export function parseGrpcInferRequest(message: Message): GrpcInferRequest {
  const request = parseMessage(component, requestSchema, message);
  const { outputs } = request;
  return {
    modelName: request.model_name,
    modelVersion: request.model_version,
    ...(request.id === "" ? {} : { id: request.id }),
    parameters: readParameters(request.parameters),
    inputs: readTensors(request.inputs, request.raw_input_contents),
    ...(outputs.length === 0 ? {} : { outputs: outputs.map(({ name }) => ({ name })) }),
  };
}

/** Throws RequestError when the answer is not of the protocol. */
export function parseGrpcInferResponse(message: Message): InferResponse {
  const response = parseMessage(component, responseSchema, message);
  return {
    modelName: response.model_name,
    modelVersion: response.model_version,
    ...(response.id === "" ? {} : { id: response.id }),
    parameters: readParameters(response.parameters),
    outputs: readTensors(response.outputs, response.raw_output_contents),
  };
}

function readTensors(
  headers: readonly z.output<typeof tensorSchema>[],
  raw: readonly Uint8Array[],
): Tensor[] {
  if (raw.length > 0 && raw.length !== headers.length) {
    throw new RequestError(
      component,
      `expected raw contents for each of the ${headers.length} tensors or for none, got ${raw.length}`,
    );
  }
  return headers.map(({ name, datatype: typeName, shape, parameters, contents }, index) => {
    const datatype = readDatatype(name, typeName);
    if (parameters["shared_memory_region"] !== undefined) {
      throw new RequestError(
        component,
        `'${name}': expected the tensor in the request, got a region of shared memory, which is not offered`,
      );
    }
    if (raw.length > 0) return decodeRaw({ name, datatype, shape, bytes: raw[index] });
    return readContents({ name, datatype, shape, contents: contents ?? contentsSchema.parse({}) });
  });
}

function readContents({
  name,
  datatype,
  shape,
  contents,
}: {
  name: string;
  datatype: Datatype;
  shape: readonly number[];
  contents: Contents;
}): Tensor {
  const count = countElements(name, shape);
  const values = datatype === "BYTES" ? contents.bytes_contents : elementsOf(name, datatype, contents);
  if (values.length !== count) {
    throw new RequestError(
      tensorComponent,
      `'${name}': expected ${count} elements for shape [${shape.join(", ")}], got ${values.length}`,
    );
  }
  if (datatype === "BYTES") return { name, datatype, shape, data: contents.bytes_contents };
  const data = zeros(datatype, count);
  for (const [index, value] of values.entries()) {
    if (data instanceof BigInt64Array || data instanceof BigUint64Array) data[index] = BigInt(String(value));
    else data[index] = Number(value);
    // An integer that its datatype cannot hold came out as another one.
    if (
      typeof value === "number" &&
      Number.isInteger(value) &&
      !datatype.startsWith("FP") &&
      Number(data[index]) !== value
    )
      throw new RequestError(tensorComponent, `'${name}': expected integers of ${datatype}, got ${value}`);
  }
  return { name, datatype, shape, data };
}

function elementsOf(
  name: string,
  datatype: NumericDatatype,
  contents: Contents,
): readonly (number | string | boolean)[] {
  switch (datatype) {
    case "BOOL":
      return contents.bool_contents;
    case "INT8":
    case "INT16":
    case "INT32":
      return contents.int_contents;
    case "UINT8":
    case "UINT16":
    case "UINT32":
      return contents.uint_contents;
    case "INT64":
      return contents.int64_contents;
    case "UINT64":
      return contents.uint64_contents;
    case "FP32":
      return contents.fp32_contents;
    case "FP64":
      return contents.fp64_contents;
    case "FP16":
    case "BF16":
      throw new RequestError(tensorComponent, `'${name}': expected ${datatype} in raw_input_contents`);
  }
}

function readParameters(parameters: z.output<typeof parametersSchema>): Parameters {
  const entries = Object.entries(parameters).flatMap(([name, parameter]): [string, ParameterValue][] => {
    const {
      bool_param,
      int64_param,
      uint64_param,
      double_param,
      string_param,
      parameter_choice: choice,
    } = parameter;
    const values = { bool_param, int64_param, uint64_param, double_param, string_param };
    const value = Object.entries(values).find(([key]) => key === choice)?.[1];
    return value === undefined ? [] : [[name, value]];
  });
  return Object.fromEntries(entries);
}

function writeParameters(parameters: Parameters): Message {
  return Object.fromEntries(
    Object.entries(parameters).map(([name, value]) => {
      if (typeof value === "boolean") return [name, { bool_param: value }];
      if (typeof value === "string") return [name, { string_param: value }];
      return [name, Number.isSafeInteger(value) ? { int64_param: value } : { double_param: value }];
    }),
  );
}

function writeHeaders(tensors: readonly Tensor[]): Message[] {
  return tensors.map(({ name, datatype, shape }) => ({ name, datatype, shape }));
}

export function encodeGrpcInferRequest(request: GrpcInferRequest): Message {
  return {
    model_name: request.modelName,
    model_version: request.modelVersion,
    id: request.id ?? "",
    parameters: writeParameters(request.parameters),
    inputs: writeHeaders(request.inputs),
    outputs: (request.outputs ?? []).map(({ name }) => ({ name })),
    raw_input_contents: request.inputs.map(encodeRaw),
  };
}

/** Raw contents for every output, as Triton answers. */
export function encodeGrpcInferResponse(response: InferResponse): Message {
  return {
    model_name: response.modelName,
    model_version: response.modelVersion,
    id: response.id ?? "",
    parameters: writeParameters(response.parameters ?? {}),
    outputs: writeHeaders(response.outputs),
    raw_output_contents: response.outputs.map(encodeRaw),
  };
}
