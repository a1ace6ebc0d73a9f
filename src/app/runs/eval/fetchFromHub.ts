/** Evaluation data from the Hugging Face hub: where the harness asks for a split, the hub client brings its files into its cache. */
import { setGlobalProxyFromEnv } from "node:http";
import { join } from "node:path";
import { CheckpointError, ConfigError, DataError, HubError, note } from "../../../base/index.ts";
import { hubSettings, pullDataset } from "../../../checkpoint/index.ts";
import type { HubSettings, ModelLicense } from "../../../checkpoint/index.ts";
import { findFiles } from "../../../eval/index.ts";
import type { DataSource, FetchData } from "../../../eval/index.ts";
import { Transfers } from "../../terminal/transfers.ts";

/** Where the hub keeps what it converts of data sets that are published as programs or in other formats. */
const convertedRevision = "refs/convert/parquet";

interface Place {
  revision: string;
  patterns: readonly string[];
}

/**
 * Fetches data sets under their hub names, each file checked against the hub's checksum, into the cache that Python's library shares.
 * It throws HubError (refused, unreachable, damaged), FileError, and DataError where neither the data set nor its conversion has the split.
 */
export function fetchFromHub(settings: HubSettings = hubSettings()): FetchData {
  // HTTP_PROXY, HTTPS_PROXY and NO_PROXY, which Node leaves alone unless told.
  setGlobalProxyFromEnv();
  return async (source, split) => {
    const { hub } = source;
    if (hub === undefined) return [];
    for (const place of placesOf(source, split)) {
      try {
        const files = await filesAt(place, { source, repository: hub.repository, settings });
        if (files.length > 0) return files;
      } catch (error) {
        if (!isAbsence(error)) throw error;
      }
    }
    throw missing(source, split, settings);
  };
}

/** A pinned revision stands alone; else the newest, then the hub's conversion. */
function placesOf({ hub, splits }: DataSource<unknown>, split: string): Place[] {
  const patterns = splits[split] ?? [];
  if (hub?.revision !== undefined) return [{ revision: hub.revision, patterns }];
  const converted = [`${hub?.configuration ?? "default"}/${split}/*.parquet`];
  return [
    { revision: "main", patterns },
    { revision: convertedRevision, patterns: converted },
  ];
}

async function filesAt(
  { revision, patterns }: Place,
  {
    source,
    repository,
    settings,
  }: { source: DataSource<unknown>; repository: string; settings: HubSettings },
): Promise<string[]> {
  using transfers = new Transfers();
  const page = `${settings.endpoint}/datasets/${repository}`;
  const pulled = await pullDataset(repository, {
    revision,
    firstOf: patterns,
    settings,
    observer: {
      waiting: (holder) => transfers.print(`${holder} is fetching ${repository}: waiting for it`),
      planned: ({ model, files, missingBytes }) => {
        const totalBytes = files.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
        transfers.print(
          `${source.folder}: ${repository} at ${model.commit} from ${settings.endpoint}, licence: ${licenceOf(model.license, source)} (${page})`,
        );
        transfers.start({ totalBytes, doneBytes: totalBytes - missingBytes });
      },
      received: ({ path, sizeBytes }, bytes) => transfers.received(path, sizeBytes, bytes),
      checking: ({ path, sizeBytes }) => transfers.checking(path, sizeBytes),
      finished: ({ path }) => transfers.finished(path),
      retrying: (_, error) => transfers.print(`trying again: ${error.message}`),
    },
  });
  const files = settings.isOffline
    ? findFiles(pulled.folder, patterns)
    : pulled.files.map((file) => join(pulled.folder, file));
  if (settings.isOffline && files.length > 0)
    note(`${source.folder}: ${repository} at ${pulled.commit} from the cache (HF_HUB_OFFLINE is set)`);
  return files.toSorted();
}

/** As the hub tells it, else as the task knows it. */
function licenceOf({ id, name }: ModelLicense, { licence }: DataSource<unknown>): string {
  return id === undefined || id === "other" || id === "unknown" ? (name ?? licence) : id;
}

/** No file of these names, no conversion, nothing in the cache: another place may have the split. Refusals and faults are none. */
function isAbsence(error: unknown): boolean {
  if (error instanceof ConfigError || error instanceof CheckpointError) return true;
  return error instanceof HubError && error.fields["code"] === "RevisionNotFound";
}

function missing(
  { folder, hub, homepage, licence, splits }: DataSource<unknown>,
  split: string,
  { isOffline, cacheFolder }: HubSettings,
): DataError {
  const where = isOffline ? `the cache ${cacheFolder}` : `${hub?.repository} on the hub`;
  const names = `it is looked for as ${(splits[split] ?? []).join(", ")}`;
  const hint = isOffline
    ? `fetch it while HF_HUB_OFFLINE is not set, or get it from ${homepage}; licence: ${licence}`
    : `get it from ${homepage}; licence: ${licence}; ${names}`;
  return new DataError(
    "eval",
    `expected the ${split} split of ${folder} in ${where}, got none of its files`,
    {
      hint,
      fields: { folder, split },
    },
  );
}
