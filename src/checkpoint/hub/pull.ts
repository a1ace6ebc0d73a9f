/** A model or data set from the hub into the cache: what it is, which files, is there room, then all of them or none under its name. */
import { statfsSync } from "node:fs";
import { dirname, join } from "node:path";
import { ConfigError, FileError, formatBytes, makeFolder, systemErrorCode } from "../../base/index.ts";
import { CachedRepository, cachedName, defaultRevision, requireCachedModel } from "./cache.ts";
import { HubClient } from "./client.ts";
import type { HubFile, HubModel, ModelLicense } from "./client.ts";
import { downloadFile } from "./download.ts";
import type { DownloadObserver } from "./download.ts";
import { allOrNone, Limit } from "./limit.ts";
import { lockFile } from "./lock.ts";
import { checkRepositoryName, checkRevision } from "./names.ts";
import type { RepositoryKind } from "./names.ts";
import { partialBytes } from "./partialFile.ts";
import { chooseFiles } from "./select.ts";
import type { FilePatterns } from "./select.ts";
import { hubSettings } from "./settings.ts";
import type { HubSettings } from "./settings.ts";
import { objectNameOf } from "./verify.ts";

export interface PullPlan {
  model: HubModel;
  /** Everything chosen, with what the cache already has. */
  files: HubFile[];
  missing: HubFile[];
  /** Bytes that have to come. */
  missingBytes: number;
  notes: string[];
}

export interface PullObserver extends DownloadObserver {
  /** Another process pulls the same model. */
  waiting?(holder: string): void;
  planned?(plan: PullPlan): void;
}

export interface PullOptions extends FilePatterns {
  /** Branch, tag or commit; "main" if left out. */
  revision?: string;
  /** Requests at once. */
  connections?: number;
  /** Files larger than this come in several pieces at once. */
  pieceBytes?: number;
  /** Also read what the cache has, and pull again what is damaged. */
  isVerifying?: boolean;
  /** Stop after the plan. */
  isDryRun?: boolean;
  settings?: HubSettings;
  signal?: AbortSignal;
  observer?: PullObserver;
}

export interface PulledModel {
  name: string;
  revision: string;
  commit: string;
  /** The snapshot: a folder as the repository has it. */
  folder: string;
  files: string[];
  license: ModelLicense | undefined;
}

const defaultConnections = 8;
const defaultPieceBytes = 64 << 20;

/**
 * Pulls `org/name`. Afterwards the revision's name stands for a snapshot with every chosen file, each checked; if it throws, the
 * revision stands for what it stood for before, and what came stays to go on from.
 *
 * Throws HubError (no such model, no access, damaged), ConfigError (name, revision, patterns), FileError (the disk), CheckpointError
 * (offline and not in the cache), or the signal's reason.
 */
export async function pullModel(name: string, options: PullOptions = {}): Promise<PulledModel> {
  return await pullRepository({ name, kind: "model" }, options);
}

/**
 * Pulls files of the data set `org/name`, in the same way and with the same errors. `firstOf` or `include` say which: data sets have
 * no default choice.
 */
export async function pullDataset(
  name: string,
  options: PullOptions & ({ firstOf: readonly string[] } | { include: readonly string[] }),
): Promise<PulledModel> {
  return await pullRepository({ name, kind: "dataset" }, options);
}

async function pullRepository(
  { name, kind }: { name: string; kind: RepositoryKind },
  options: PullOptions,
): Promise<PulledModel> {
  checkRepositoryName(name, kind);
  const settings = options.settings ?? hubSettings();
  const revision = checkRevision(options.revision ?? defaultRevision);
  if (settings.isOffline) {
    const cached = requireCachedModel(`${name}@${revision}`, settings.cacheFolder, kind);
    return { ...cached, files: [] };
  }
  const { signal, observer = {} } = options;
  const client = new HubClient(settings, kind);
  const model = await client.model(name, revision, signal);
  const choice = chooseFiles(await client.files(name, model.commit, signal), options);
  // A gate stands before the files, not before their list: it shows here, before anything is planned or written.
  await client.transport.retrying(
    () => client.locate({ name, commit: model.commit }, choice.files[0], signal),
    {
      signal,
    },
  );
  const repository = new CachedRepository(settings.cacheFolder, name, kind);
  const result = {
    name,
    revision,
    commit: model.commit,
    folder: repository.snapshot(model.commit),
    files: choice.files.map(({ path }) => path),
    license: model.license,
  };
  const plan = (): PullPlan => planOf(repository, { model, ...choice });
  if (options.isDryRun === true) {
    observer.planned?.(plan());
    return result;
  }
  const lockName = join(settings.cacheFolder, ".locks", cachedName(name, kind), "nautilus.lock");
  using _lock = await lockFile(lockName, { signal, onWait: (holder) => observer.waiting?.(holder) });
  if (options.isVerifying === true) await dropDamaged(repository, choice.files, options);
  const locked = plan();
  observer.planned?.(locked);
  checkRoom(repository, locked.missingBytes);
  await download({ client, repository, plan: locked, name }, options);
  repository.writeLicense(model.commit, { model: name, gate: model.gate, ...model.license });
  repository.writeRef(revision, model.commit);
  return result;
}

interface Download {
  client: HubClient;
  repository: CachedRepository;
  plan: PullPlan;
  name: string;
}

async function download({ client, repository, plan, name }: Download, options: PullOptions): Promise<void> {
  const { connections = defaultConnections, pieceBytes = defaultPieceBytes, observer = {}, signal } = options;
  if (!Number.isSafeInteger(connections) || connections < 1)
    throw new ConfigError("hub", `connections: expected a whole number of at least 1, got ${connections}`);
  const { commit } = plan.model;
  const context = {
    client,
    repository,
    model: { name, commit },
    connections: new Limit(connections),
    pieceBytes,
    observer,
  };
  const open = new Limit(connections);
  // The same bytes may stand under several names: one download serves them all.
  const blobs = new Map(plan.files.map((file) => [file.object, file]));
  const task = async (first: HubFile, signal: AbortSignal): Promise<void> => {
    await open.run(async () => {
      signal.throwIfAborted();
      if (!repository.hasBlob(first)) await downloadFile(context, first, signal);
    });
    for (const file of plan.files) if (file.object === first.object) repository.link(commit, file);
    observer.finished?.(first);
  };
  await allOrNone([...blobs.values()], task, signal);
}

function planOf(
  repository: CachedRepository,
  { model, files, notes }: { model: HubModel; files: HubFile[]; notes: string[] },
): PullPlan {
  const missing = [...new Map(files.map((file) => [file.object, file])).values()].filter(
    (file) => !repository.hasBlob(file),
  );
  let missingBytes = 0;
  for (const file of missing) {
    const path = repository.blob(file);
    const { sizeBytes } = file;
    missingBytes +=
      sizeBytes - partialBytes({ path, sizeBytes, pieceBytes: defaultPieceBytes, label: file.path });
  }
  return { model, files, missing, missingBytes, notes };
}

/** Throws FileError where the disk has no room for what has to come. */
function checkRoom(repository: CachedRepository, neededBytes: number): void {
  makeFolder("hub", repository.folder);
  let freeBytes: number;
  try {
    const { bavail, bsize } = statfsSync(repository.folder);
    freeBytes = bavail * bsize;
  } catch (error) {
    // Some network file systems do not tell; the download will.
    if (systemErrorCode(error) === undefined) throw error;
    return;
  }
  if (freeBytes >= neededBytes) return;
  const cache = dirname(repository.folder);
  throw new FileError(
    "hub",
    `expected ${formatBytes(neededBytes)} of room in ${cache}, got ${formatBytes(freeBytes)}`,
    {
      hint: "free some space, or set HF_HUB_CACHE to a folder on another disk",
      fields: { neededBytes, freeBytes },
    },
  );
}

/** Lets go of blobs whose bytes are not what their names say. */
async function dropDamaged(
  repository: CachedRepository,
  files: readonly HubFile[],
  { signal, observer }: PullOptions,
): Promise<void> {
  for (const file of files) {
    if (!repository.hasBlob(file)) continue;
    observer?.checking?.(file);
    if ((await objectNameOf(repository.blob(file), file.object, { signal })) !== file.object)
      repository.dropBlob(file);
  }
}
