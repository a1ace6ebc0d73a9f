/** `nautilus serve`: opens engines, starts the server, and ends both in order. */
import { existsSync, readdirSync, statSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { ConfigError, messageOf, note, readText } from "../../base/index.ts";
import { findCachedModel, hubSettings, parseModelCard } from "../../checkpoint/index.ts";
import type { QuantisedFormat } from "../../device/index.ts";
import type { CacheFormat } from "../../models/index.ts";
import { loadChatTemplates } from "../../text/index.ts";
import { listCheckpoints } from "../../train/index.ts";
import type { EngineSettings } from "../api/openEngine.ts";
import { openThreadedEngine } from "../api/openThreadedEngine.ts";
import type { OpenEngine } from "../api/openEngine.ts";
import type { ServerOptionsInput } from "../server/options.ts";
import { ServedModels } from "../server/servedModel.ts";
import type { ServedModel } from "../server/servedModel.ts";
import { createServer } from "../server/server.ts";
import { stopSignal } from "../terminal/signals.ts";
import { findAdapter } from "./adapter/find.ts";
import { ensurePages } from "./buildPages.ts";
import { startScreen } from "./startScreen.ts";
import { findModel } from "./openModel.ts";

/** The verb's options. */
export interface ServeCliOptions {
  model: string[];
  modelName?: string[];
  host: string;
  port: number;
  grpcPort?: number;
  apiKey?: string[];
  cors?: string[];
  tlsCert?: string;
  tlsKey?: string;
  bodyLimit: number;
  requestTimeout: number;
  drainTimeout: number;
  maxConcurrent: number;
  maxQueue: number;
  maxBatch?: number;
  maxContext?: number;
  cacheTokens?: number;
  precision?: "f32" | "bf16";
  mmap: boolean;
  tokenizer?: string;
  quantise?: QuantisedFormat;
  kvCache: CacheFormat;
  adapter?: string[];
  maxAdapters?: number;
  maxAdapterRank?: number;
  playground: boolean;
  logPrompts?: boolean;
  logLevel: "silent" | "error" | "warn" | "info" | "debug";
  device: "auto" | "cpu" | "cuda" | "reference";
  threads?: number;
}

/** Runs until it is asked to end. Throws ConfigError, CheckpointError, FileError, and what opening a model throws. */
export async function serveCommand(options: ServeCliOptions): Promise<void> {
  const names = namesOf(options);
  const server = serverOptionsOf(options);
  await using engines = new AsyncDisposableStack();
  const models: ServedModel[] = [];
  const chosen = adaptersOf(options.adapter ?? []);
  for (const [i, model] of options.model.entries()) {
    note(`Opening ${model} as ${names[i]} …`);
    const { maxBatch: maxSequences, maxContext, cacheTokens, kvCache } = options;
    const { precision, quantise, device, threads } = options;
    const { maxAdapters, maxAdapterRank, tokenizer, mmap } = options;
    const loading = { ...chosen, maxAdapters, maxAdapterRank };
    const size = { maxSequences, maxContext, cacheTokens, kvCache };
    const settings = { model, ...size, ...loading, precision, quantise, mmap, tokenizer, device, threads };
    const onCrash = (error: unknown): void =>
      note(`The engine of ${names[i]} died and is started again: ${messageOf(error)}`);
    const opened = engines.use(await openThreadedEngine(settings, onCrash));
    models.push(servedModel(names[i], opened));
  }
  const pages = options.playground ? await ensurePages() : undefined;
  await using running = createServer({
    models: new ServedModels(models),
    options: server,
    ...(pages === undefined ? {} : { pages }),
  });
  // The page for people comes first; from then on, a second signal ends at once.
  using stop = stopSignal("Ending: running requests may finish. Again to end at once.");
  const [url, grpcUrl] = await running.start();
  process.stdout.write(startPage({ url, grpcUrl }, models, options));
  await aborted(stop.signal);
  await running.stop();
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

function namesOf({ model, modelName = [] }: ServeCliOptions): string[] {
  if (modelName.length > model.length)
    throw new ConfigError("serve", `expected at most ${model.length} --model-name, got ${modelName.length}`);
  const names = model.map((path, i) => modelName[i] ?? nameOf(path));
  const twice = names.find((name, i) => names.indexOf(name) < i);
  if (twice === undefined) return names;
  throw new ConfigError("serve", `expected models of different names, got '${twice}' twice`, {
    hint: "name them with --model-name",
  });
}

/** The folder's name, or of a pulled `org/name@revision` the name: its folder is called by a commit, and routes take no slash. */
function nameOf(path: string): string {
  if (!existsSync(path) && findCachedModel(path, hubSettings().cacheFolder) !== undefined)
    return basename(path.split("@")[0]);
  // Of a run its own name: that of its newest checkpoint is a number of steps, and changes.
  const found = listCheckpoints(path).length > 0 ? resolve(path) : findModel(path).replace(/[/\\]model$/, "");
  return basename(resolve(found)).replace(/\.(nemo|gguf)$/, "");
}

function serverOptionsOf(options: ServeCliOptions): ServerOptionsInput {
  const { tlsCert, tlsKey, host, port, maxConcurrent, maxQueue, playground } = options;
  if ((tlsCert === undefined) !== (tlsKey === undefined))
    throw new ConfigError("serve", "expected --tls-cert and --tls-key together, got one of them");
  const key = process.env["NAUTILUS_API_KEY"];
  return {
    host,
    port,
    ...(options.grpcPort === undefined ? {} : { grpcPort: options.grpcPort }),
    apiKeys: [...(options.apiKey ?? []), ...(key === undefined || key === "" ? [] : [key])],
    corsOrigins: options.cors ?? [],
    bodyLimitBytes: options.bodyLimit,
    requestTimeoutMs: Math.ceil(options.requestTimeout * 1000),
    drainTimeoutMs: Math.ceil(options.drainTimeout * 1000),
    maxConcurrent,
    maxQueue,
    playground,
    log: { level: options.logLevel, prompts: options.logPrompts === true },
    ...(tlsCert === undefined || tlsKey === undefined ? {} : { tls: { certFile: tlsCert, keyFile: tlsKey } }),
  };
}

function servedModel(name: string, { engine, tokenizer, folder }: OpenEngine): ServedModel {
  const templates = loadChatTemplates(folder);
  const card = textIn(folder, /^readme(\.md)?$/i);
  return {
    name,
    engine,
    tokenizer,
    chatTemplates: templates.names.length === 0 ? undefined : templates,
    card,
    license: textIn(folder, /^(license|licence|notice)(\.(md|txt))?$/i) ?? licenseInCard(card),
    created: Math.floor(statSync(folder).mtimeMs / 1000),
  };
}

/** The license that a card names, for a folder without its text. */
function licenseInCard(card: string | undefined): string | undefined {
  if (card === undefined) return undefined;
  const { license, licenseName = license, licenseLink } = parseModelCard(card);
  if (licenseName === undefined) return undefined;
  const named = licenseLink === undefined ? licenseName : `${licenseName} (${licenseLink})`;
  return `${named}, as the model card says: the folder has no license file.`;
}

function textIn(folder: string, pattern: RegExp): string | undefined {
  if (!existsSync(folder)) return undefined;
  const name = readdirSync(folder).find((file) => pattern.test(file));
  return name === undefined ? undefined : readText("serve", join(folder, name));
}

function startPage(
  { url, grpcUrl }: { url: string; grpcUrl: string | undefined },
  models: readonly ServedModel[],
  options: ServeCliOptions,
): string {
  return startScreen({
    url,
    models: models.map(({ name, engine: { info } }) => ({ ...info, name })),
    // The port that was bound: 0 asks for any.
    grpcPort: grpcUrl === undefined ? undefined : Number(grpcUrl.slice(grpcUrl.lastIndexOf(":") + 1)),
    hasPlayground: options.playground,
    needsKey: (options.apiKey ?? []).length > 0 || (process.env["NAUTILUS_API_KEY"] ?? "") !== "",
  });
}

/**
 * "name=folder" as folders by name, and a folder without a name as the adapter that everything goes through; also of tuning runs. Throws
 * ConfigError, CheckpointError.
 */
function adaptersOf(given: readonly string[]): Pick<EngineSettings, "adapters" | "adapter"> {
  const nameless = given.filter((text) => !text.includes("=") || existsSync(text));
  if (nameless.length === 1 && given.length === 1) return { adapter: findAdapter(nameless[0]) };
  if (nameless.length > 0) {
    throw new ConfigError(
      "serve",
      `--adapter: expected name=folder for each of several, got '${nameless[0]}'`,
    );
  }
  const pairs = given.map((text) => {
    const at = text.indexOf("=");
    if (at > 0 && at < text.length - 1) return [text.slice(0, at), findAdapter(text.slice(at + 1))] as const;
    throw new ConfigError("serve", `--adapter: expected name=folder, got '${text}'`);
  });
  const names = pairs.map(([name]) => name);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice === undefined) return { adapters: Object.fromEntries(pairs) };
  throw new ConfigError("serve", `--adapter: expected different names, got '${twice}' twice`);
}
