/**
 * Triton's generate extension: a request for text as a plain JSON object, whose keys are inputs; the answer whole, or in parts as
 * server-sent events. Scalars stand for tensors of one element.
 * Source: Triton, "Generate Extension".
 */
import { RequestError } from "../../../base/index.ts";
import {
  type InferRequest,
  type InferResponse,
  type ParameterValue,
  type Tensor,
  decodeJson,
  encodeJson,
  parseJson,
} from "../../kserve/index.ts";
import type { HttpApp, HttpContext } from "../http/environment.ts";
import { eventAnswer, eventLine } from "../http/eventStream.ts";
import type { EventLines } from "../http/eventStream.ts";
import { failureOf } from "../refusal.ts";
import { readTensorBody, targetOf } from "./httpRequest.ts";
import { inputDatatypes, isInputName } from "./modelSchema.ts";
import type { InferenceService, PartResponse } from "./service.ts";

const component = "generate";

export function mountGenerate(app: HttpApp, service: InferenceService, path: string): void {
  app.post(`${path}/generate`, async (c) => {
    const request = await readRequest(c, service);
    const response = await service.infer(c.get("request"), targetOf(c), request);
    return c.json(asObject(response));
  });
  app.post(`${path}/generate_stream`, async (c) => {
    const request = await readRequest(c, service);
    const parts = service.inferParts(c.get("request"), targetOf(c), request);
    // What is wrong from the start still becomes a status.
    const first = await parts.next();
    return sendParts(c, first, parts);
  });
}

function sendParts(
  c: HttpContext,
  first: IteratorResult<PartResponse, void>,
  parts: AsyncGenerator<PartResponse, void>,
): Response {
  const context = c.get("request");
  async function* lines(): EventLines {
    try {
      for (let part = first; part.done !== true; part = await parts.next())
        yield eventLine(asObject(part.value.response));
    } catch (error) {
      const { status, message } = failureOf(error);
      context.facts.failure = message;
      if (status === 500) context.log.error({ id: context.id, err: error }, "failed midway");
      yield eventLine({ error: message });
    } finally {
      await parts.return();
    }
  }
  return eventAnswer(c, lines());
}

async function readRequest(c: HttpContext, service: InferenceService): Promise<InferRequest> {
  const body = parseJson(component, await readTensorBody(c, service));
  if (typeof body !== "object" || body === null || Array.isArray(body))
    throw new RequestError(component, "expected a JSON object with the inputs");
  const { parameters: options, id, ...fields } = body as Readonly<Record<string, unknown>>;
  if (options !== undefined && (typeof options !== "object" || options === null || Array.isArray(options)))
    throw new RequestError(component, "expected an object as 'parameters'");
  const inputs: Tensor[] = [];
  const parameters: Record<string, ParameterValue> = {};
  for (const [name, value] of Object.entries({ ...fields, ...options })) {
    if (isInputName(name)) inputs.push(readInput(name, value));
    // What names no input is a parameter, and one that the server does not know is passed over, as Triton does.
    else if (typeof value === "string" || typeof value === "number" || typeof value === "boolean")
      parameters[name] = value;
  }
  return { ...(typeof id === "string" ? { id } : {}), parameters, inputs };
}

function readInput(name: keyof typeof inputDatatypes, value: unknown): Tensor {
  const data = Array.isArray(value) ? value.flat() : [value];
  return decodeJson({ name, datatype: inputDatatypes[name], shape: [data.length, 1], data });
}

/** Outputs by name; of one element as a scalar. */
function asObject({ modelName, modelVersion, id, outputs }: InferResponse): Record<string, unknown> {
  const values = outputs.map((tensor) => {
    const data = encodeJson(tensor);
    return [tensor.name, data.length === 1 ? data[0] : data] as const;
  });
  return {
    ...(id === undefined ? {} : { id }),
    model_name: modelName,
    model_version: modelVersion,
    ...Object.fromEntries(values),
  };
}
