/** One file from the hub to its blob: pieces in parallel, each going on where it stopped, and the checksum before it counts. */
import type { CachedRepository } from "./cache.ts";
import type { FileLocation, HubClient, HubFile } from "./client.ts";
import { allOrNone } from "./limit.ts";
import type { Limit } from "./limit.ts";
import { PartialFile } from "./partialFile.ts";
import { PassingHubError } from "./transport.ts";
import { checksumError, objectNameOf } from "./verify.ts";

/** Hears what happens to each file. */
export interface DownloadObserver {
  /** Bytes that came (negative: that have to come again). */
  received?(file: HubFile, bytes: number): void;
  /** All bytes are there and are being read for the checksum. */
  checking?(file: HubFile): void;
  finished?(file: HubFile): void;
  retrying?(file: HubFile, error: PassingHubError): void;
}

export interface DownloadContext {
  client: HubClient;
  repository: CachedRepository;
  model: { name: string; commit: string };
  connections: Limit;
  pieceBytes: number;
  observer: DownloadObserver;
}

/** Throws HubError, FileError, or the signal's reason. */
export async function downloadFile(
  context: DownloadContext,
  file: HubFile,
  signal: AbortSignal,
): Promise<void> {
  const { repository, pieceBytes, observer } = context;
  const path = repository.blob(file);
  const label = repository.file(context.model.commit, file.path);
  for (;;) {
    await using partial = await PartialFile.open({ path, sizeBytes: file.sizeBytes, pieceBytes, label });
    const resumedBytes = partial.doneBytes;
    await fill(context, { file, partial }, signal);
    observer.checking?.(file);
    const found = await objectNameOf(partial.bytesPath, file.object, { signal });
    if (found === file.object) {
      await partial.finish();
      return;
    }
    await partial.discard();
    observer.received?.(file, -file.sizeBytes);
    // What an earlier run left may have been lost with the power; bytes that all came just now were wrong when they came.
    if (resumedBytes === 0) throw checksumError(file.path, file.object, found);
  }
}

interface Filling {
  file: HubFile;
  partial: PartialFile;
}

/** Thrown inside this file alone: the server gives files in whole only. */
class NoRanges extends Error {}

async function fill(
  context: DownloadContext,
  { file, partial }: Filling,
  signal: AbortSignal,
): Promise<void> {
  const source = new Source(context, file);
  const pieces = Array.from({ length: partial.numPieces }, (_, piece) => piece);
  try {
    await allOrNone(
      pieces,
      (piece, signal) => fillPiece(context, { file, partial, source, piece }, signal),
      signal,
    );
  } catch (error) {
    if (!(error instanceof NoRanges)) throw error;
    context.observer.received?.(file, -partial.doneBytes);
    partial.restart({ isOnePiece: true });
    await fillPiece(context, { file, partial, source, piece: 0, isWhole: true }, signal);
  }
}

async function fillPiece(
  { client, connections, observer }: DownloadContext,
  {
    file,
    partial,
    source,
    piece,
    isWhole = false,
  }: Filling & { source: Source; piece: number; isWhole?: boolean },
  signal: AbortSignal,
): Promise<void> {
  let lastStart = partial.missing(piece).start;
  const attempt = async (): Promise<void> => {
    signal.throwIfAborted();
    if (isWhole) {
      observer.received?.(file, -partial.doneBytes);
      partial.restart({ isOnePiece: true });
    }
    const { start, end } = partial.missing(piece);
    if (start >= end) return;
    const answer = await client.bytes(await source.location(signal), {
      start,
      end,
      wanted: file.path,
      signal,
    });
    if (answer.isWhole && !isWhole && !(start === 0 && end === file.sizeBytes)) {
      answer.cancel();
      throw new NoRanges();
    }
    await partial.append(piece, answer.pieces, (bytes) => observer.received?.(file, bytes));
    if (partial.missing(piece).start < end) throw brokenOff(file);
  };
  await connections.run(() =>
    client.transport.retrying(attempt, {
      signal,
      hasProgressed: () => {
        const { start } = partial.missing(piece);
        const hasMore = start > lastStart && !isWhole;
        lastStart = start;
        return hasMore;
      },
      onRetry: (error) => {
        source.forget();
        observer.retrying?.(file, error);
      },
    }),
  );
}

/** Where the file's bytes are, asked once for all its pieces and again after a failure. */
class Source {
  readonly #context: DownloadContext;
  readonly #file: HubFile;
  #location: Promise<FileLocation> | undefined;

  constructor(context: DownloadContext, file: HubFile) {
    this.#context = context;
    this.#file = file;
  }

  location(signal: AbortSignal): Promise<FileLocation> {
    this.#location ??= this.#context.client.locate(this.#context.model, this.#file, signal);
    return this.#location;
  }

  forget(): void {
    this.#location = undefined;
  }
}

function brokenOff({ path }: HubFile): PassingHubError {
  return new PassingHubError(`${path}: expected more bytes, got the end of the answer`, {
    hint: "run the same command again to go on where it stopped",
  });
}
