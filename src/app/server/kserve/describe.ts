/**
 * The inference protocol's routes for the OpenAPI document. Routes that always refuse (shared memory, unloading, changing settings) are
 * not named. Schemas of answers are loose where the protocol lets servers add keys.
 */
import { z } from "zod";
import { inferRequestSchema, inferResponseSchema } from "../../kserve/index.ts";
import type { DescribedRoute } from "../openapi/document.ts";
import { inputNames } from "./modelSchema.ts";

const tag = "KServe v2";
const text = z.string();
const count = z.int().nonnegative();

const errorSchema = z.strictObject({ error: text });
const serverSchema = z.strictObject({ name: text, version: text, extensions: z.array(text) });
const metadataTensorSchema = z.strictObject({ name: text, datatype: text, shape: z.array(z.int()) });
const metadataSchema = z.strictObject({
  name: text,
  versions: z.array(text),
  platform: text,
  inputs: z.array(metadataTensorSchema),
  outputs: z.array(metadataTensorSchema),
});
const configTensorSchema = z.looseObject({ name: text, data_type: text, dims: z.array(z.int()) });
const configSchema = z.looseObject({
  name: text,
  platform: text,
  backend: text,
  max_batch_size: count,
  input: z.array(configTensorSchema),
  output: z.array(configTensorSchema),
  model_transaction_policy: z.strictObject({ decoupled: z.boolean() }),
});
const durationSchema = z.strictObject({ count, ns: count });
const statisticsSchema = z.strictObject({
  model_stats: z.array(
    z.looseObject({
      name: text,
      version: text,
      last_inference: count.describe("Milliseconds since 1970"),
      inference_count: count,
      execution_count: count,
      inference_stats: z.record(text, durationSchema),
      batch_stats: z.array(z.unknown()),
    }),
  ),
});
const repositorySchema = z.array(z.strictObject({ name: text, version: text, state: text, reason: text }));

const generateRequestSchema = z
  .looseObject({ id: text.optional(), parameters: z.looseObject({}).optional() })
  .describe(`Inputs by name, numbers and texts as they are: ${inputNames.join(", ")}`);
const generateSchema = z.looseObject({ id: text.optional(), model_name: text, model_version: text });

const serverRoutes: readonly DescribedRoute[] = [
  { method: "get", path: "/v2", tag, summary: "The server and its extensions", response: serverSchema },
  { method: "get", path: "/v2/health/live", tag, summary: "Whether it lives", isOpen: true },
  { method: "get", path: "/v2/health/ready", tag, summary: "Whether it takes work on", isOpen: true },
  {
    method: "get",
    path: "/v2/models/stats",
    tag,
    summary: "Counts of all models",
    response: statisticsSchema,
  },
  {
    method: "post",
    path: "/v2/repository/index",
    tag,
    summary: "Names of models, adapters and streaming forms",
    response: repositorySchema,
  },
  {
    method: "post",
    path: "/v2/repository/models/{model}/load",
    tag,
    summary: "Nothing, for a model that is there",
    response: z.strictObject({}),
  },
  {
    method: "get",
    path: "/v2/trace/setting",
    tag,
    summary: "Settings of traces",
    response: z.looseObject({}),
  },
  { method: "get", path: "/v2/logging", tag, summary: "Settings of the log", response: z.looseObject({}) },
];

function modelRoutes(path: string): readonly DescribedRoute[] {
  return [
    { method: "get", path, tag, summary: "The model's tensors", response: metadataSchema },
    { method: "get", path: `${path}/ready`, tag, summary: "Whether it answers" },
    { method: "get", path: `${path}/config`, tag, summary: "In Triton's terms", response: configSchema },
    { method: "get", path: `${path}/stats`, tag, summary: "Its counts", response: statisticsSchema },
    {
      method: "get",
      path: `${path}/trace/setting`,
      tag,
      summary: "Settings of its traces",
      response: z.looseObject({}),
    },
    {
      method: "post",
      path: `${path}/infer`,
      tag,
      summary: "Answer tensors with tensors (raw ones follow the JSON, as the binary tensor extension says)",
      request: inferRequestSchema,
      response: inferResponseSchema,
    },
    {
      method: "post",
      path: `${path}/generate`,
      tag,
      summary: "Answer a plain object",
      request: generateRequestSchema,
      response: generateSchema,
    },
    {
      method: "post",
      path: `${path}/generate_stream`,
      tag,
      summary: "Answer a plain object in parts",
      request: generateRequestSchema,
      event: generateSchema,
    },
  ];
}

export const inferenceRoutes: readonly DescribedRoute[] = [
  ...serverRoutes,
  ...modelRoutes("/v2/models/{model}"),
  ...modelRoutes("/v2/models/{model}/versions/{version}"),
].map((route) => ({ ...route, error: errorSchema }));
