/**
 * The inference protocol over gRPC: inference.GRPCInferenceService. A call's cancellation or deadline stops its generation; a stream
 * carries any number of requests, each answered in parts (decoupled), and an error of one does not end the others.
 */
import { once } from "node:events";
import { readFileSync } from "node:fs";
import {
  type Metadata,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerUnaryCall,
  type UntypedServiceImplementation,
  type sendUnaryData,
  status as codes,
} from "@grpc/grpc-js";
import { FileError, fileError, messageOf } from "../../../base/index.ts";
import {
  type Message,
  encodeGrpcInferResponse,
  loadInferenceService,
  parseGrpcInferRequest,
} from "../../kserve/index.ts";
import { failureOf } from "../refusal.ts";
import { RequestContext } from "../requestContext.ts";
import type { Listener } from "../serverContext.ts";
import { logSettingsMessage, refuseSettings, traceSettingsMessage } from "./settings.ts";
import type { InferTarget, InferenceService, PartResponse } from "./service.ts";

type Unary = ServerUnaryCall<Message, Message>;
type Stream = ServerDuplexStream<Message, Message>;
type UnaryMethod = (message: Message, context: RequestContext) => Message | Promise<Message>;

/** Of answers: log-probabilities of long prompts are larger than gRPC's default of 4 MiB. */
const maxSendBytes = 512 * 1024 * 1024;

export class GrpcListener implements Listener {
  readonly #service: InferenceService;
  #server: Server | undefined;

  constructor(service: InferenceService) {
    this.#service = service;
  }

  /** Throws FileError where the address is taken or a TLS file is missing. */
  async start(): Promise<string> {
    const { host, grpcPort = 0, tls, bodyLimitBytes } = this.#service.server.options;
    const server = new Server({
      "grpc.max_receive_message_length": bodyLimitBytes,
      "grpc.max_send_message_length": maxSendBytes,
    });
    server.addService(loadInferenceService(), implementationOf(this.#service));
    const shownHost = host.includes(":") ? `[${host}]` : host;
    const credentials =
      tls === undefined
        ? ServerCredentials.createInsecure()
        : ServerCredentials.createSsl(null, [
            { cert_chain: readPem(tls.certFile), private_key: readPem(tls.keyFile) },
          ]);
    const port = await new Promise<number>((resolve, reject) => {
      server.bindAsync(`${shownHost}:${grpcPort}`, credentials, (error, bound) => {
        if (error === null) resolve(bound);
        else reject(bindError(`${shownHost}:${grpcPort}`, error));
      });
    });
    this.#server = server;
    return `${tls === undefined ? "grpc" : "grpcs"}://${shownHost}:${port}`;
  }

  drain(): Promise<void> {
    const server = this.#server;
    if (server === undefined) return Promise.resolve();
    // Calls that run end; a server that has none is closed at once.
    return new Promise((resolve) => server.tryShutdown(() => resolve()));
  }

  close(): void {
    this.#server?.forceShutdown();
  }
}

function readPem(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw fileError("serve", "a PEM file for TLS", path, error);
  }
}

function bindError(address: string, cause: Error): FileError {
  return new FileError("serve", `expected a free address for gRPC, got ${address}: ${messageOf(cause)}`, {
    hint: "choose another with --grpc-port or --host",
    cause,
  });
}

function implementationOf(service: InferenceService): UntypedServiceImplementation {
  const unary = Object.entries(unaryMethods(service)).map(([name, method]) => [
    name,
    (call: Unary, callback: sendUnaryData<Message>) =>
      void answerUnary(service, { name, method, call, callback }),
  ]);
  return {
    ...Object.fromEntries(unary),
    ModelStreamInfer: (call: Stream) => answerStream(service, call),
  };
}

function unaryMethods(service: InferenceService): Record<string, UnaryMethod> {
  return {
    ServerLive: () => ({ live: true }),
    ServerReady: () => ({ ready: service.isReady }),
    ModelReady: (message) => ({ ready: service.isModelReady(targetOf(message)) }),
    ServerMetadata: () => service.serverMetadata(),
    ModelMetadata: (message) => service.modelMetadata(targetOf(message)),
    ModelConfig: (message) => ({ config: service.modelConfig(targetOf(message)) }),
    ModelStatistics: (message) => {
      const target = targetOf(message);
      return service.statistics(target.name === "" ? undefined : target);
    },
    RepositoryIndex: () => ({ models: service.repositoryIndex() }),
    RepositoryModelLoad: (message) => {
      service.loadModel(textOf(message, "model_name"));
      return {};
    },
    RepositoryModelUnload: (message) => {
      service.unloadModel(textOf(message, "model_name"));
      return {};
    },
    TraceSetting: (message) => (isAsking(message) ? traceSettingsMessage() : refuseSettings()),
    LogSettings: (message) => (isAsking(message) ? logSettingsMessage() : refuseSettings()),
    ModelInfer: async (message, context) => {
      const request = parseGrpcInferRequest(message);
      const target = { name: request.modelName, version: request.modelVersion };
      return encodeGrpcInferResponse(await service.infer(context, target, request));
    },
  };
}

function textOf(message: Message, field: string): string {
  const value = message[field];
  return typeof value === "string" ? value : "";
}

function targetOf(message: Message): InferTarget {
  return { name: textOf(message, "name"), version: textOf(message, "version") };
}

/** Whether a message about settings changes none. */
function isAsking({ settings }: Message): boolean {
  return typeof settings !== "object" || settings === null || Object.keys(settings).length === 0;
}

/** Probes are anybody's, as they are over HTTP. */
const openMethods = new Set(["ServerLive", "ServerReady"]);

function checkKey({ server }: InferenceService, method: string, metadata: Metadata): void {
  if (openMethods.has(method)) return;
  const [header] = [...metadata.get("authorization"), ...metadata.get("triton-access-token")];
  server.apiKeys.check(header?.toString());
}

function contextOf({ server }: InferenceService, route: string, metadata: Metadata): RequestContext {
  const [id] = metadata.get("x-request-id");
  return new RequestContext(server, { id: id?.toString(), protocol: "grpc", route });
}

async function answerUnary(
  service: InferenceService,
  {
    name,
    method,
    call,
    callback,
  }: { name: string; method: UnaryMethod; call: Unary; callback: sendUnaryData<Message> },
): Promise<void> {
  const context = contextOf(service, name, call.metadata);
  // Emitted for a call that its client gave up, and for one whose deadline passed.
  call.on("cancelled", () => context.abortGone());
  try {
    checkKey(service, name, call.metadata);
    const message = await method(call.request, context);
    callback(null, message);
    context.finish("OK");
  } catch (error) {
    const { code, details } = statusOf(error);
    callback({ code, details, name: codes[code], message: details });
    context.finish(codes[code], code === codes.INTERNAL ? error : undefined);
  }
}

function statusOf(error: unknown): { code: codes; details: string } {
  const { status, message } = failureOf(error);
  return { code: codeByStatus[status], details: message };
}

const codeByStatus: Readonly<Record<ReturnType<typeof failureOf>["status"], codes>> = {
  400: codes.INVALID_ARGUMENT,
  401: codes.UNAUTHENTICATED,
  403: codes.PERMISSION_DENIED,
  404: codes.NOT_FOUND,
  405: codes.UNIMPLEMENTED,
  408: codes.DEADLINE_EXCEEDED,
  413: codes.RESOURCE_EXHAUSTED,
  415: codes.INVALID_ARGUMENT,
  429: codes.RESOURCE_EXHAUSTED,
  499: codes.CANCELLED,
  500: codes.INTERNAL,
  501: codes.UNIMPLEMENTED,
  503: codes.UNAVAILABLE,
  504: codes.DEADLINE_EXCEEDED,
};

function answerStream(service: InferenceService, call: Stream): void {
  const running = new Set<Promise<void>>();
  try {
    checkKey(service, "ModelStreamInfer", call.metadata);
  } catch (error) {
    const { code, details } = statusOf(error);
    call.emit("error", { code, details });
    return;
  }
  const contexts = new Set<RequestContext>();
  call.on("cancelled", () => {
    for (const context of contexts) context.abortGone();
  });
  call.on("data", (message: Message) => {
    const context = contextOf(service, "ModelStreamInfer", call.metadata);
    contexts.add(context);
    const run = answerInParts(service, { call, context, message }).finally(() => {
      contexts.delete(context);
      running.delete(run);
    });
    running.add(run);
  });
  call.on("end", () => void Promise.allSettled(running).then(() => call.end()));
  // A broken stream also says "cancelled".
  call.on("error", () => undefined);
}

async function answerInParts(
  service: InferenceService,
  { call, context, message }: { call: Stream; context: RequestContext; message: Message },
): Promise<void> {
  try {
    const request = parseGrpcInferRequest(message);
    const target = { name: request.modelName, version: request.modelVersion };
    const wantsEmptyEnd = request.parameters["triton_enable_empty_final_response"] === true;
    for await (const part of service.inferParts(context, target, request)) {
      await write(call, context, asStreamMessage(part, part.isLast && !wantsEmptyEnd));
      if (part.isLast && wantsEmptyEnd) {
        const empty = { ...part, response: { ...part.response, outputs: [] } };
        await write(call, context, asStreamMessage(empty, true));
      }
    }
    context.finish("OK");
  } catch (error) {
    const { code, details } = statusOf(error);
    const id = textOf(message, "id");
    if (!call.cancelled) call.write({ error_message: details, infer_response: { id } });
    context.finish(codes[code], code === codes.INTERNAL ? error : undefined);
  }
}

function asStreamMessage({ response }: PartResponse, isFinal: boolean): Message {
  const parameters = { ...response.parameters, triton_final_response: isFinal };
  return { error_message: "", infer_response: encodeGrpcInferResponse({ ...response, parameters }) };
}

/** Waits where the client reads more slowly than the model writes. */
async function write(call: Stream, { signal }: RequestContext, message: Message): Promise<void> {
  if (call.cancelled || call.write(message)) return;
  await once(call, "drain", { signal });
}
