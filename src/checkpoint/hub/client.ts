/**
 * The hub's routes that a download needs: what a model is, which files a commit has, where a file's bytes are.
 * Routes and headers: https://huggingface.co/docs/hub/api and the download protocol of `huggingface_hub`.
 */
import { z } from "zod";
import { HubError, messageOf } from "../../base/index.ts";
import { checkCommit, checkFilePath, checkObjectName, kindNames } from "./names.ts";
import type { RepositoryKind } from "./names.ts";
import type { HubSettings } from "./settings.ts";
import { PassingHubError, reasonOf, Transport } from "./transport.ts";
import type { HubRequest } from "./transport.ts";

/** What a model's owner says of its use. */
export interface ModelLicense {
  /** Identifier such as "apache-2.0" or "other"; undefined where the owner says nothing. */
  id: string | undefined;
  name: string | undefined;
  link: string | undefined;
}

export interface HubModel {
  /** The name as the hub spells it now. */
  name: string;
  commit: string;
  gate: "none" | "auto" | "manual";
  license: ModelLicense;
}

export interface HubFile {
  /** Path inside the model, with slashes; never leaves it. */
  path: string;
  sizeBytes: number;
  /** sha256 of the bytes for large files, git's blob hash for small ones; also the name in the cache. */
  object: string;
}

/** Where a file's bytes are, for now: signed addresses expire. */
export interface FileLocation {
  url: string;
}

const text = z.string().nullish();
const cardSchema = z.object({
  license: z.union([z.string(), z.array(z.string())]).nullish(),
  license_name: text,
  license_link: text,
});
const modelSchema = z.object({
  id: text,
  sha: z.string(),
  gated: z.union([z.boolean(), z.string()]).nullish(),
  // Written by hand by the model's owner: anything can be in it, and none of it is worth failing for.
  cardData: cardSchema.nullish().catch(undefined),
  tags: z.array(z.string()).nullish(),
});
const treeSchema = z.array(
  z.object({
    type: z.string(),
    path: z.string(),
    oid: z.string(),
    size: z.number().int().nonnegative(),
    lfs: z.object({ oid: z.string(), size: z.number().int().nonnegative() }).nullish(),
  }),
);

/** Who has no network should hear of it in seconds. */
const listingAttempts = 3;

const encodePath = (path: string): string => path.split("/").map(encodeURIComponent).join("/");

export class HubClient {
  readonly transport: Transport;
  readonly #names: (typeof kindNames)[RepositoryKind];

  constructor(settings: HubSettings, kind: RepositoryKind = "model") {
    this.transport = new Transport(settings);
    this.#names = kindNames[kind];
  }

  get #endpoint(): string {
    return this.transport.settings.endpoint;
  }

  /** Throws HubError: no such model or revision, no answer. */
  async model(name: string, revision: string, signal?: AbortSignal): Promise<HubModel> {
    const url = `${this.#endpoint}/api/${this.#names.plural}/${name}/revision/${encodeURIComponent(revision)}`;
    const { value } = await this.#json(url, modelSchema, { wanted: name, signal });
    const { gated } = value;
    return {
      name: value.id ?? name,
      commit: checkCommit(value.sha),
      gate: gated === true || gated === "auto" ? "auto" : gated === "manual" ? "manual" : "none",
      license: licenseOf(value),
    };
  }

  /** Every file of a commit. Throws HubError, also for a name that would leave the model's folder. */
  async files(name: string, commit: string, signal?: AbortSignal): Promise<HubFile[]> {
    const files: HubFile[] = [];
    let url: string | undefined =
      `${this.#endpoint}/api/${this.#names.plural}/${name}/tree/${commit}?recursive=true`;
    while (url !== undefined) {
      const page: { value: z.output<typeof treeSchema>; next: string | undefined } = await this.#json(
        url,
        treeSchema,
        { wanted: `files of ${name}`, signal },
      );
      for (const { type, path, oid, size, lfs } of page.value) {
        if (type !== "file") continue;
        checkFilePath(path);
        files.push({
          path,
          sizeBytes: lfs?.size ?? size,
          object: checkObjectName(lfs?.oid ?? oid, path),
        });
      }
      url = page.next;
    }
    return files;
  }

  /** Asks where a file's bytes are, and that they are those of the listing. Throws HubError. */
  async locate(
    { name, commit }: { name: string; commit: string },
    file: HubFile,
    signal?: AbortSignal,
  ): Promise<FileLocation> {
    const { url, headers, away } = await this.transport.request(
      `${this.#endpoint}/${this.#names.prefix}${name}/resolve/${commit}/${encodePath(file.path)}`,
      { method: "HEAD", wanted: file.path, followsAway: false, signal },
    );
    const told = {
      commit: headers.get("x-repo-commit") ?? commit,
      object: (headers.get("x-linked-etag") ?? file.object).replace(/^W\//, "").replaceAll('"', ""),
      size: Number(headers.get("x-linked-size") ?? file.sizeBytes),
    };
    if (told.commit !== commit || told.object !== file.object || told.size !== file.sizeBytes) {
      throw new HubError(
        "hub",
        `${file.path}: expected ${file.object} of ${file.sizeBytes} bytes at ${commit}, got ${told.object} of ${told.size} bytes at ${told.commit}`,
        { hint: "the hub or mirror contradicts its own listing" },
      );
    }
    return { url: away ?? url };
  }

  /**
   * The bytes [start, end) of a file, or all of it from 0 where the server knows no ranges (`isWhole`). Ends with PassingHubError
   * when the connection breaks, falls silent or ends early.
   */
  async bytes(
    location: FileLocation,
    { start, end, wanted, signal }: { start: number; end: number; wanted: string; signal?: AbortSignal },
  ): Promise<{ isWhole: boolean; pieces: AsyncIterable<Uint8Array>; cancel: () => void }> {
    const headers = { range: `bytes=${start}-${end - 1}` };
    const { response } = await this.transport.request(location.url, { headers, wanted, signal });
    const isWhole = response.status !== 206;
    const range = response.headers.get("content-range");
    if (!isWhole && range?.startsWith(`bytes ${start}-`) !== true) {
      await response.body?.cancel();
      throw new HubError("hub", `${wanted}: expected bytes from ${start} on, got '${range}'`);
    }
    const cancel = (): void => void response.body?.cancel().catch(() => undefined);
    return { isWhole, pieces: this.#pieces(response, wanted, signal), cancel };
  }

  async *#pieces(response: Response, wanted: string, signal?: AbortSignal): AsyncGenerator<Uint8Array> {
    const { dataTimeoutMs } = this.transport.settings;
    const reader = response.body?.getReader();
    if (reader === undefined) return;
    try {
      for (;;) {
        const { promise: silence, reject } = Promise.withResolvers<never>();
        const timer = setTimeout(
          () => reject(new Error(`silence for ${dataTimeoutMs / 1000} s`)),
          dataTimeoutMs,
        );
        const read = reader.read();
        // The loser of the race must not end the process when the reader is cancelled.
        read.catch(() => undefined);
        const { done, value } = await Promise.race([read, silence]).finally(() => clearTimeout(timer));
        if (done) return;
        yield value;
      }
    } catch (error) {
      signal?.throwIfAborted();
      throw new PassingHubError(`${wanted}: expected more bytes, got '${reasonOf(error)}'`, {
        cause: error,
        hint: "run the same command again to go on where it stopped",
      });
    } finally {
      // A generator left early must not keep the connection.
      reader.cancel().catch(() => undefined);
    }
  }

  async #json<Schema extends z.ZodType>(
    url: string,
    schema: Schema,
    request: HubRequest,
  ): Promise<{ value: z.output<Schema>; next: string | undefined }> {
    return this.transport.retrying(
      async () => {
        const { response, url: answered } = await this.transport.request(url, request);
        const body: unknown = await response.json().catch((error: unknown) => {
          throw new PassingHubError(
            `${request.wanted}: expected JSON from ${this.#endpoint}, got '${messageOf(error)}'`,
            {
              hint: "is HF_ENDPOINT a hub?",
            },
          );
        });
        const result = schema.safeParse(body);
        if (!result.success) {
          const { path, message } = result.error.issues[0];
          throw new HubError(
            "hub",
            `${request.wanted}: expected the hub's answer, got something else at '${path.join(".")}': ${message}`,
            { hint: "is HF_ENDPOINT a hub?" },
          );
        }
        return { value: result.data, next: this.#nextPage(response, answered) };
      },
      { signal: request.signal, maxAttempts: listingAttempts },
    );
  }

  /** The next page of a listing (RFC 8288), on the hub itself. */
  #nextPage(response: Response, answered: string): string | undefined {
    const link = /<([^>]+)>\s*;\s*rel="?next"?/.exec(response.headers.get("link") ?? "")?.[1];
    if (link === undefined) return undefined;
    const target = URL.parse(link, answered);
    if (target === null) return undefined;
    // A mirror may pass on links that name the hub behind it: its own address is the one to ask.
    return target.origin === new URL(this.#endpoint).origin
      ? target.href
      : `${this.#endpoint}${target.pathname}${target.search}`;
  }
}

function licenseOf({ cardData, tags }: z.output<typeof modelSchema>): ModelLicense {
  const said = Array.isArray(cardData?.license) ? cardData.license.join(", ") : cardData?.license;
  const tag = tags?.find((entry) => entry.startsWith("license:"))?.slice("license:".length);
  return {
    id: said ?? tag,
    name: cardData?.license_name ?? undefined,
    link: cardData?.license_link ?? undefined,
  };
}
