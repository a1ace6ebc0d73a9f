/** The KServe v2 protocol as data: tensors, messages, their forms on the wire. For the server and for clients; knows nothing of models. */
export * from "./datatypes.ts";
export {
  type GrpcInferRequest,
  encodeGrpcInferRequest,
  encodeGrpcInferResponse,
  parseGrpcInferRequest,
  parseGrpcInferResponse,
} from "./grpcInfer.ts";
export { type Message, type Method, loadInferenceService } from "./grpcService.ts";
export {
  type HttpBody,
  encodeInferRequest,
  encodeInferResponse,
  headerLengthName,
  inferRequestSchema,
  inferResponseSchema,
  parseHeaderLength,
  parseInferRequest,
  parseInferResponse,
} from "./httpInfer.ts";
export { decodeJson, encodeJson } from "./jsonTensor.ts";
export * from "./messages.ts";
export { decodeRaw, encodeRaw } from "./rawTensor.ts";
export {
  type BytesTensor,
  type NumericTensor,
  type Tensor,
  countElements,
  readBooleans,
  readIntegers,
  readNumbers,
  readTexts,
  textTensor,
} from "./tensor.ts";
