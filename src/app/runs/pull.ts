/** `nautilus pull`: shows the plan, the licence and the bytes as they come, and says where the model lies. */
import { setGlobalProxyFromEnv } from "node:http";
import { ConfigError, formatBytes, countOf } from "../../base/index.ts";
import { hubSettings, pullModel } from "../../checkpoint/index.ts";
import type {
  HubFile,
  HubSettings,
  ModelLicense,
  PulledModel,
  PullObserver,
  PullPlan,
} from "../../checkpoint/index.ts";
import { stopSignal } from "../terminal/signals.ts";
import { Transfers } from "../terminal/transfers.ts";

/** The verb's options. */
export interface PullCliOptions {
  revision: string;
  include?: string[];
  exclude?: string[];
  connections: number;
  verify?: boolean;
  dryRun?: boolean;
  json?: boolean;
}

const interruptedExitCode = 130;

export async function pullCommand(text: string, options: PullCliOptions): Promise<void> {
  const { name, revision } = nameAndRevision(text, options.revision);
  const settings = hubSettings();
  // HTTP_PROXY, HTTPS_PROXY and NO_PROXY, which Node leaves alone unless told.
  setGlobalProxyFromEnv();
  using stop = stopSignal(`stopping: run the same command again to go on`);
  using transfers = new Transfers();
  const { revision: _, include, exclude, connections, verify, dryRun } = options;
  let pulled: PulledModel;
  try {
    pulled = await pullModel(name, {
      revision,
      include,
      exclude,
      connections,
      isVerifying: verify,
      isDryRun: dryRun,
      settings,
      signal: stop.signal,
      observer: observe(transfers, { settings, isDryRun: dryRun === true }),
    });
  } catch (error) {
    if (!stop.signal.aborted) throw error;
    process.exitCode = interruptedExitCode;
    return;
  }
  if (dryRun === true) return;
  if (settings.isOffline)
    transfers.print(`${name} is in the cache (HF_HUB_OFFLINE is set: not asked for news)`);
  report(pulled, { transfers, isJson: options.json === true });
}

/** `org/name@revision` is understood as well, because the other verbs take it. */
function nameAndRevision(text: string, option: string): { name: string; revision: string } {
  const at = text.indexOf("@");
  if (at < 0) return { name: text, revision: option };
  if (option !== "main")
    throw new ConfigError(
      "pull",
      `expected one revision, got '${text.slice(at + 1)}' and --revision ${option}`,
    );
  return { name: text.slice(0, at), revision: text.slice(at + 1) };
}

function observe(
  transfers: Transfers,
  { settings, isDryRun }: { settings: HubSettings; isDryRun: boolean },
): PullObserver {
  return {
    waiting: (holder) => transfers.print(`${holder} is pulling this model: waiting for it`),
    planned: (plan) => showPlan(plan, { transfers, settings, isDryRun }),
    received: ({ path, sizeBytes }, bytes) => transfers.received(path, sizeBytes, bytes),
    checking: ({ path, sizeBytes }) => transfers.checking(path, sizeBytes),
    finished: ({ path }) => transfers.finished(path),
    retrying: (_, error) => transfers.print(`trying again: ${error.message}`),
  };
}

function showPlan(
  { model, files, missing, missingBytes, notes }: PullPlan,
  { transfers, settings, isDryRun }: { transfers: Transfers; settings: HubSettings; isDryRun: boolean },
): void {
  const totalBytes = total(files);
  transfers.print(`${model.name} at ${model.commit.slice(0, 12)} from ${settings.endpoint}`);
  transfers.print(`licence: ${describeLicense(model.license, `${settings.endpoint}/${model.name}`)}`);
  const numCached = files.length - files.filter((file) => missing.includes(file)).length;
  transfers.print(
    `${countOf(files.length, "file")}, ${formatBytes(totalBytes)}; ${numCached} in the cache, ${formatBytes(missingBytes)} to come`,
  );
  for (const note of notes) transfers.print(note);
  if (isDryRun)
    for (const { path, sizeBytes } of files)
      process.stdout.write(`${formatBytes(sizeBytes).padStart(12)}  ${path}\n`);
  transfers.start({ totalBytes, doneBytes: totalBytes - missingBytes });
}

const total = (files: readonly HubFile[]): number => files.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);

function describeLicense({ id, name, link }: ModelLicense, page: string): string {
  if (id === undefined && name === undefined) return `not named by the owner (see ${page})`;
  const shown = id === "other" || id === undefined ? (name ?? "other") : id;
  return link === undefined
    ? shown
    : `${shown}, ${/^https?:/.test(link) ? link : `${page}/blob/main/${link}`}`;
}

function report(pulled: PulledModel, { transfers, isJson }: { transfers: Transfers; isJson: boolean }): void {
  if (isJson) {
    process.stdout.write(`${JSON.stringify(pulled, undefined, 2)}\n`);
    return;
  }
  transfers.print(
    `try: nautilus generate --model ${pulled.name}${pulled.revision === "main" ? "" : `@${pulled.revision}`} --prompt "…"`,
  );
  // The one line on standard output, for scripts.
  process.stdout.write(`${pulled.folder}\n`);
}
