/** What every protocol of one server shares. */
import type { Admission } from "./admission.ts";
import type { ApiKeys } from "./apiKeys.ts";
import type { Logger } from "./logging.ts";
import type { ServerMetrics } from "./metrics.ts";
import type { ServerOptions } from "./options.ts";
import { Refusal } from "./refusal.ts";
import type { ResolvedModel, ServedModel, ServedModels } from "./servedModel.ts";

export interface ServerContext {
  /** Of Nautilus. */
  readonly version: string;
  readonly options: ServerOptions;
  readonly models: ServedModels;
  readonly admission: Admission;
  readonly apiKeys: ApiKeys;
  readonly metrics: ServerMetrics;
  readonly log: Logger;
  /** Requests whose answers are not complete. */
  readonly openRequests: Set<OpenRequest>;
  /** Whether the server is ending: nothing new is taken on. */
  readonly isDraining: boolean;
  /** Something else that listens, such as a gRPC service: started and ended with the server. */
  addListener(listener: Listener): void;
}

export interface OpenRequest {
  abort(reason: Refusal): void;
}

export interface Listener {
  /** Starts to listen; the URL for people. */
  start(): Promise<string>;
  /** Takes nothing new on, resolves when running requests have ended. */
  drain(): Promise<void>;
  /** Ends at once whatever still runs. */
  close(): void;
}

/** Models and, as "model:adapter", their adapters. */
function namesOf(models: readonly ServedModel[]): string[] {
  return models.flatMap(({ name, engine }) => [
    name,
    ...engine.info.adapters.map((adapter) => `${name}:${adapter}`),
  ]);
}

/** The model of a name in a request. Throws a refusal (404) that names those there are. */
export function resolveModel(server: ServerContext, name: string | undefined): ResolvedModel {
  const all = server.models.list();
  // Where there is one model, its name may be left out.
  if (name === undefined && all.length === 1) return { model: all[0], adapter: undefined };
  const resolved = name === undefined ? undefined : server.models.resolve(name);
  if (resolved !== undefined) return resolved;
  const got = name === undefined ? "none" : `'${name.slice(0, 200)}'`;
  throw new Refusal(name === undefined ? 400 : 404, `expected a model of this server, got ${got}`, {
    hint: `it serves ${namesOf(all).join(", ")}`,
    parameter: "model",
    reason: "model_not_found",
  });
}
