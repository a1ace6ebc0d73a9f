/** `POST /v1/embeddings`: hidden states of prompts, the mean over their tokens or the last token's, of unit length unless asked otherwise. */
import { embeddingRequestSchema } from "../../api/openai/index.ts";
import { readJsonBody } from "../http/body.ts";
import type { HttpApp, HttpContext } from "../http/environment.ts";
import { parseBody } from "../http/parse.ts";
import { Refusal } from "../refusal.ts";
import { embedRequest } from "../runRequest.ts";
import { resolveModel } from "../serverContext.ts";
import type { ServerContext } from "../serverContext.ts";
import { encodePrompts, roomFor } from "./prompts.ts";

export function mountEmbeddings(app: HttpApp, server: ServerContext): void {
  for (const path of ["/v1/embeddings", "/v1/embeddings/"]) app.post(path, (c) => embeddings(server, c));
}

async function embeddings(server: ServerContext, c: HttpContext): Promise<Response> {
  const request = parseBody("embeddings", embeddingRequestSchema, await readJsonBody(server, c));
  const model = resolveModel(server, request.model);
  const { width } = model.model.engine.info;
  if (request.dimensions !== undefined && request.dimensions !== width) {
    throw new Refusal(400, `dimensions: expected the model's width, ${width}, got ${request.dimensions}`, {
      parameter: "dimensions",
      reason: "invalid_value",
    });
  }
  const prompts = encodePrompts(model.model, request.input, {
    parameter: "input",
    truncateTo: request.truncate_prompt_tokens,
  });
  // Nothing is generated: a prompt may fill the context.
  for (const prompt of prompts) roomFor(model.model, prompt, { wanted: 0, parameter: "input" });
  const vectors = await embedRequest(server, c.get("request"), { model, prompts, pooling: request.pooling });
  const isBase64 = request.encoding_format === "base64";
  const numTokens = prompts.reduce((total, prompt) => total + prompt.length, 0);
  return c.json({
    object: "list",
    data: vectors.map((vector, index) => {
      const made = request.normalize ? unit(vector) : vector;
      return { object: "embedding", index, embedding: isBase64 ? base64(made) : Array.from(made) };
    }),
    model: request.model ?? model.model.name,
    usage: { prompt_tokens: numTokens, total_tokens: numTokens },
  });
}

function unit(vector: Float32Array): Float32Array {
  const length = Math.hypot(...vector);
  return length === 0 ? vector : vector.map((value) => value / length);
}

function base64(vector: Float32Array): string {
  const bytes = Buffer.alloc(vector.length * 4);
  for (const [i, value] of vector.entries()) bytes.writeFloatLE(value, i * 4);
  return bytes.toString("base64");
}
