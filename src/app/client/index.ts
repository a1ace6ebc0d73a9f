/** Clients of model servers. */
export { InferenceHttp } from "./inferenceHttp.ts";
export type { InferenceHttpOptions, ModelDescription, TensorDescription } from "./inferenceHttp.ts";
export { NemoQuery } from "./nemoQuery.ts";
export type { NemoQueryOptions, QueryLlmOptions, QueryStreamOptions } from "./nemoQuery.ts";
export { QueryError } from "./queryError.ts";
