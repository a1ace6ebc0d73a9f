/** A server over models: an HTTP app, what listens beside it, and how both start and end. The only place that mounts protocols. */
import { readFileSync } from "node:fs";
import type { Server } from "node:http";
import { createServer as createHttpsServer } from "node:https";
import type { AddressInfo } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { createAdaptorServer } from "@hono/node-server";
import { Hono } from "hono";
import type { DestinationStream } from "pino";
import { FileError, fileError, invariant } from "../../base/index.ts";
import { Admission } from "./admission.ts";
import { ApiKeys } from "./apiKeys.ts";
import { infoRoutes, mountInfo } from "./health/info.ts";
import { mountHealth } from "./health/health.ts";
import type { HttpApp, HttpEnvironment } from "./http/environment.ts";
import { fetchOf } from "./http/eventStream.ts";
import { mountFailures } from "./http/failures.ts";
import { safeHeaders, withApiKeys, withCors, withRequestContext } from "./http/middleware.ts";
import { GrpcListener, inferenceRoutes, InferenceService, mountKserve } from "./kserve/index.ts";
import { createLogger } from "./logging.ts";
import { ServerMetrics } from "./metrics.ts";
import { openAiRoutes } from "./openai/describe.ts";
import { mountOpenAi } from "./openai/index.ts";
import { mountOpenApi } from "./openapi/mount.ts";
import { builtPages, mountPages } from "./playground/pages.ts";
import { packageVersion } from "../version.ts";
import { parseServerOptions } from "./options.ts";
import type { ServerOptions, ServerOptionsInput } from "./options.ts";
import { Refusal } from "./refusal.ts";
import type { ServedModels } from "./servedModel.ts";
import type { Listener, OpenRequest, ServerContext } from "./serverContext.ts";

export interface NautilusServer extends AsyncDisposable {
  /** The routes, also callable without a socket: `app.request("/health")`. */
  readonly app: HttpApp;
  readonly context: ServerContext;
  /** Listens; the URLs, HTTP first. Throws FileError where the address is taken or a TLS file is missing. */
  start(): Promise<readonly string[]>;
  /** Takes nothing new on, lets running requests end (up to `drainTimeoutMs`), then closes. */
  stop(): Promise<void>;
}

export interface ServerInput {
  models: ServedModels;
  options?: ServerOptionsInput;
  /** The built playground; default: the package's own. */
  pages?: string;
  /** Where log lines go instead of standard error. */
  logDestination?: DestinationStream;
}

class RunningServer implements NautilusServer, ServerContext {
  readonly app: HttpApp = new Hono<HttpEnvironment>();
  readonly version = packageVersion();
  readonly options: ServerOptions;
  readonly models: ServedModels;
  readonly admission: Admission;
  readonly apiKeys: ApiKeys;
  readonly metrics: ServerMetrics;
  readonly log;
  readonly openRequests = new Set<OpenRequest>();
  readonly #listeners: Listener[] = [];
  #isDraining = false;
  #stopped: Promise<void> | undefined;

  constructor({ models, options = {}, pages, logDestination }: ServerInput) {
    this.options = parseServerOptions(options);
    this.models = models;
    this.admission = new Admission(this.options);
    this.apiKeys = new ApiKeys(this.options.apiKeys);
    this.metrics = new ServerMetrics(models, this.admission);
    this.log = createLogger(this.options.log, logDestination);
    this.#listeners.push(new HttpListener(this));
    this.#mount(pages ?? builtPages());
  }

  get context(): ServerContext {
    return this;
  }

  get isDraining(): boolean {
    return this.#isDraining;
  }

  addListener(listener: Listener): void {
    this.#listeners.push(listener);
  }

  async start(): Promise<readonly string[]> {
    const urls: string[] = [];
    try {
      for (const listener of this.#listeners) urls.push(await listener.start());
    } catch (error) {
      await this.stop();
      throw error;
    }
    return urls;
  }

  stop(): Promise<void> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  async #stop(): Promise<void> {
    this.#isDraining = true;
    const drained = Promise.all(this.#listeners.map((listener) => listener.drain()));
    const timer = new AbortController();
    const isInTime = await Promise.race([
      drained.then(() => true),
      delay(this.options.drainTimeoutMs, false, { signal: timer.signal }).catch(() => true),
    ]);
    timer.abort();
    if (!isInTime) {
      const ending = new Refusal(503, "expected a running server, got one that is ending", {
        retryAfterSeconds: 10,
      });
      for (const request of this.openRequests) request.abort(ending);
      // A moment for the last words to leave.
      await Promise.race([drained, delay(lastWordsMs)]);
    }
    for (const listener of this.#listeners) listener.close();
    await drained.catch(() => undefined);
    this.metrics[Symbol.dispose]();
  }

  #mount(pages: string): void {
    const { app } = this;
    app.use(withRequestContext(this), safeHeaders);
    if (this.options.corsOrigins.length > 0) app.use(withCors(this));
    app.use(withApiKeys(this));
    mountFailures(app);
    mountHealth(app, this);
    const inference = new InferenceService(this);
    mountKserve(app, inference);
    if (this.options.grpcPort !== undefined) this.#listeners.push(new GrpcListener(inference));
    mountInfo(app, this);
    mountOpenAi(app, this);
    mountOpenApi(app, this, [...openAiRoutes, ...inferenceRoutes, ...infoRoutes]);
    if (this.options.playground) mountPages(app, pages);
  }
}

const lastWordsMs = 500;
/** Between looks at what still runs while a server ends. */
const pollMs = 10;

/** Node's HTTP server under the app. */
class HttpListener implements Listener {
  readonly #app: HttpApp;
  readonly #options: ServerOptions;
  readonly #openRequests: ReadonlySet<OpenRequest>;
  #server: Server | undefined;
  #isClosed = false;

  constructor({ app, options, openRequests }: RunningServer) {
    this.#app = app;
    this.#options = options;
    this.#openRequests = openRequests;
  }

  async start(): Promise<string> {
    const { host, port, tls } = this.#options;
    const server = this.#open();
    await new Promise<void>((resolve, reject) => {
      server.once("error", (error) => reject(listenError(host, port, error)));
      server.listen({ host, port, backlog: 4096 }, resolve);
    });
    this.#server = server;
    const address = server.address() as AddressInfo;
    const shown = address.family === "IPv6" ? `[${address.address}]` : address.address;
    return `${tls === undefined ? "http" : "https"}://${shown}:${address.port}`;
  }

  async drain(): Promise<void> {
    const server = this.#server;
    if (server === undefined) return;
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    server.closeIdleConnections();
    // What is left then are connections kept alive, or whose requests never came whole.
    while (this.#openRequests.size > 0 && !this.#isClosed) await delay(pollMs);
    server.closeAllConnections();
    await closed;
  }

  close(): void {
    this.#isClosed = true;
    this.#server?.closeAllConnections();
  }

  #open(): Server {
    const { tls, headersTimeoutMs, receiveTimeoutMs, keepAliveTimeoutMs } = this.#options;
    const limits = {
      headersTimeout: headersTimeoutMs,
      requestTimeout: receiveTimeoutMs,
      keepAliveTimeout: keepAliveTimeoutMs,
      // How often the two timeouts above are looked at.
      connectionsCheckingInterval: Math.max(50, Math.min(1000, headersTimeoutMs / 4)),
      noDelay: true,
    };
    const fetch = fetchOf(this.#app);
    if (tls === undefined) return createAdaptorServer({ fetch, serverOptions: limits }) as Server;
    const serverOptions = { ...limits, cert: readPem(tls.certFile), key: readPem(tls.keyFile) };
    return createAdaptorServer({ fetch, createServer: createHttpsServer, serverOptions }) as Server;
  }
}

function readPem(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw fileError("serve", "a PEM file for TLS", path, error);
  }
}

function listenError(host: string, port: number, error: NodeJS.ErrnoException): Error {
  const reasons: Record<string, string> = {
    EADDRINUSE: "one that another program listens on",
    EACCES: "one that this user may not open",
    EADDRNOTAVAIL: "one that this machine does not have",
    ENOTFOUND: "a name that nobody knows",
  };
  const reason = reasons[error.code ?? ""] ?? error.message;
  return new FileError("serve", `expected a free address, got ${host}:${port}, ${reason}`, {
    hint: "choose another with --port or --host",
    cause: error,
  });
}

/** A server that does not listen yet. Throws ConfigError for options that cannot be. */
export function createServer(input: ServerInput): NautilusServer {
  invariant(input.models.list().length > 0, "a server has models");
  return new RunningServer(input);
}
