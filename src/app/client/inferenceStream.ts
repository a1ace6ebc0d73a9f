/**
 * A client of the KServe v2 protocol's gRPC stream (`ModelStreamInfer`): one request, its answer in parts, as decoupled models give
 * it. The end is the part whose parameter `triton_final_response` is true.
 */
import { Client, credentials, Metadata } from "@grpc/grpc-js";
import type { ClientDuplexStream } from "@grpc/grpc-js";
import {
  encodeGrpcInferRequest,
  type InferRequest,
  type InferResponse,
  loadInferenceService,
  type Message,
  parseGrpcInferResponse,
} from "../kserve/index.ts";
import { QueryError } from "./queryError.ts";

export interface InferenceStreamOptions {
  /** "localhost:8001", or with grpc:// or grpcs:// before it. */
  url: string;
  modelName: string;
  apiKey?: string | undefined;
  /** Until the stream stands. */
  connectTimeoutMs: number;
  signal?: AbortSignal | undefined;
}

/** Parts as they come; leaving the loop early stops the generation. Throws QueryError. */
export async function* inferInParts(
  { url, modelName, apiKey, connectTimeoutMs, signal }: InferenceStreamOptions,
  request: InferRequest,
): AsyncGenerator<InferResponse> {
  const isSecure = url.startsWith("grpcs://");
  const client = new Client(
    url.replace(/^grpcs?:\/\//, ""),
    isSecure ? credentials.createSsl() : credentials.createInsecure(),
    { "grpc.max_receive_message_length": -1 },
  );
  const call = await open(client, { url, apiKey, connectTimeoutMs });
  const cancel = (): void => call.cancel();
  signal?.addEventListener("abort", cancel, { once: true });
  try {
    call.write(encodeGrpcInferRequest({ ...request, modelName, modelVersion: "" }));
    call.end();
    for await (const message of call as AsyncIterable<Message>) {
      const part = readPart(message);
      if (part.outputs.length > 0) yield part;
      if (part.parameters?.["triton_final_response"] === true) return;
    }
  } catch (error) {
    throw error instanceof QueryError ? error : streamError(url, error);
  } finally {
    signal?.removeEventListener("abort", cancel);
    call.cancel();
    client.close();
  }
}

async function open(
  client: Client,
  { url, apiKey, connectTimeoutMs }: { url: string; apiKey: string | undefined; connectTimeoutMs: number },
): Promise<ClientDuplexStream<Message, Message>> {
  await new Promise<void>((resolve, reject) => {
    client.waitForReady(Date.now() + connectTimeoutMs, (error) => {
      if (error === undefined) resolve();
      else {
        client.close();
        reject(
          new QueryError(
            "query",
            `expected a gRPC server at ${url} within ${connectTimeoutMs / 1000} s, got none`,
            { hint: "start it with --grpc-port", cause: error },
          ),
        );
      }
    });
  });
  const metadata = new Metadata();
  if (apiKey !== undefined) metadata.set("authorization", `Bearer ${apiKey}`);
  const { path, requestSerialize, responseDeserialize } = loadInferenceService()["ModelStreamInfer"];
  const call = client.makeBidiStreamRequest(path, requestSerialize, responseDeserialize, metadata);
  // Reading the stream throws what went wrong; a cancelled one has nobody left to read it.
  call.on("error", () => undefined);
  return call;
}

function readPart(message: Message): InferResponse {
  const { error_message: refusal, infer_response: answer } = message;
  if (typeof refusal === "string" && refusal !== "")
    throw new QueryError("query", `expected an answer, got: ${refusal}`);
  if (typeof answer !== "object" || answer === null)
    throw new QueryError("query", "expected an answer in the stream's message, got none");
  return parseGrpcInferResponse(Object.fromEntries(Object.entries(answer)));
}

function streamError(url: string, cause: unknown): QueryError {
  const details = cause instanceof Error && "details" in cause ? String(cause.details) : String(cause);
  return new QueryError("query", `expected an answer from ${url}, got: ${details}`, { cause });
}
