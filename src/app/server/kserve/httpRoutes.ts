/** The inference protocol over HTTP: `/v2`, with Triton's extensions. Errors are `{ "error": "…" }`, as mountFailures writes them. */
import { promisify } from "node:util";
import { deflate, gzip } from "node:zlib";
import {
  type InferResponse,
  encodeInferResponse,
  headerLengthName,
  parseHeaderLength,
  parseInferRequest,
  textTensor,
} from "../../kserve/index.ts";
import type { HttpApp, HttpContext } from "../http/environment.ts";
import { Refusal } from "../refusal.ts";
import { mountGenerate } from "./generateRoutes.ts";
import { readTensorBody, targetOf } from "./httpRequest.ts";
import { logSettings, refuseSettings, traceSettings } from "./settings.ts";
import type { InferenceService } from "./service.ts";

/** Paths with and without a version, as the protocol has both. */
const models = ["/v2/models/:model", "/v2/models/:model/versions/:version"];

export function mountKserve(app: HttpApp, service: InferenceService): void {
  mountServer(app, service);
  mountRepository(app, service);
  for (const path of models) {
    app.get(path, (c) => c.json(service.modelMetadata(targetOf(c))));
    app.get(`${path}/ready`, (c) => {
      const isReady = service.isModelReady(targetOf(c));
      return c.body(null, isReady ? 200 : service.isReady ? 400 : 503);
    });
    app.get(`${path}/config`, (c) => c.json(service.modelConfig(targetOf(c))));
    app.get(`${path}/stats`, (c) => c.json(service.statistics(targetOf(c))));
    app.post(`${path}/infer`, (c) => infer(c, service));
    app.get(`${path}/trace/setting`, (c) => c.json(traceSettings));
    app.post(`${path}/trace/setting`, () => refuseSettings());
    mountGenerate(app, service, path);
  }
}

function mountServer(app: HttpApp, service: InferenceService): void {
  app.get("/v2", (c) => c.json(service.serverMetadata()));
  app.get("/v2/health/live", (c) => c.body(null, 200));
  app.get("/v2/health/ready", (c) => c.body(null, service.isReady ? 200 : 503));
  app.get("/v2/models/stats", (c) => c.json(service.statistics()));
  app.get("/v2/trace/setting", (c) => c.json(traceSettings));
  app.post("/v2/trace/setting", () => refuseSettings());
  app.get("/v2/logging", (c) => c.json(logSettings));
  app.post("/v2/logging", () => refuseSettings());
  for (const kind of ["systemsharedmemory", "cudasharedmemory"]) {
    app.get(`/v2/${kind}/status`, (c) => c.json([]));
    // Clients tidy up regions that they never registered.
    app.post(`/v2/${kind}/unregister`, (c) => c.body(null, 200));
    app.post(`/v2/${kind}/region/:region/unregister`, (c) => c.body(null, 200));
    app.post(`/v2/${kind}/region/:region/register`, () => {
      throw new Refusal(
        501,
        "expected tensors in requests, got a region of shared memory, which is not offered",
      );
    });
  }
}

function mountRepository(app: HttpApp, service: InferenceService): void {
  app.post("/v2/repository/index", (c) => c.json(service.repositoryIndex()));
  app.post("/v2/repository/models/:model/load", (c) => {
    service.loadModel(targetOf(c).name);
    return c.json({});
  });
  app.post("/v2/repository/models/:model/unload", (c) => {
    service.unloadModel(targetOf(c).name);
    return c.json({});
  });
}

async function infer(c: HttpContext, service: InferenceService): Promise<Response> {
  const context = c.get("request");
  const bytes = await readTensorBody(c, service);
  const headerLength = parseHeaderLength(c.req.header(headerLengthName), bytes.length);
  // A header of no length marks a raw request: the body is the one input, here a prompt.
  const request =
    headerLength === 0
      ? {
          parameters: { binary_data_output: true },
          inputs: [{ ...textTensor("prompts", [1, 1], [""]), data: [bytes] }],
        }
      : parseInferRequest({ bytes, headerLength });
  const response = await service.infer(context, targetOf(c), request);
  const byDefault = request.parameters["binary_data_output"] === true;
  const asked = new Map(request.outputs?.map(({ name, isBinary }) => [name, isBinary]));
  return answer(c, response, (name) => asked.get(name) ?? byDefault);
}

async function answer(
  c: HttpContext,
  response: InferResponse,
  isBinary: (name: string) => boolean,
): Promise<Response> {
  const { bytes, headerLength } = encodeInferResponse(response, isBinary);
  if (headerLength !== undefined) c.header(headerLengthName, String(headerLength));
  c.header("content-type", headerLength === undefined ? "application/json" : "application/octet-stream");
  const encoding = acceptedEncoding(c.req.header("accept-encoding"));
  if (encoding === undefined || bytes.length < worthCompressingBytes) return c.body(new Uint8Array(bytes));
  c.header("content-encoding", encoding);
  return c.body(new Uint8Array(await compressors[encoding](bytes)));
}

const worthCompressingBytes = 1024;
const compressors = { gzip: promisify(gzip), deflate: promisify(deflate) };
type Encoding = keyof typeof compressors;

/** The encoding that Triton's clients ask for by its name alone; browsers and others, which name several, are spared the work. */
function acceptedEncoding(header: string | undefined): Encoding | undefined {
  return header === "gzip" || header === "deflate" ? header : undefined;
}
