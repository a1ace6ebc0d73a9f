/**
 * A hub on this machine: the routes, headers and refusals of the public one that a download meets, with its storage behind another
 * origin, and faults to order. Python's own client pulls from it too (interop.test.ts), so it is not only ours that it pleases.
 */
import { createHash } from "node:crypto";
import { createServer } from "node:http";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export interface HubTestFile {
  path: string;
  bytes: Buffer;
  /** Large files lie in the storage, under their sha256. */
  isLarge: boolean;
}

export interface HubTestModel {
  commit: string;
  /** Branches and tags; "main" stands for the commit by itself. */
  refs?: Readonly<Record<string, string>>;
  files: HubTestFile[];
  gated?: false | "auto" | "manual";
  isPrivate?: boolean;
  cardData?: Readonly<Record<string, unknown>>;
}

export interface SeenRequest {
  server: "hub" | "storage";
  method: string;
  path: string;
  range: string | undefined;
  token: string | undefined;
}

/** What goes wrong, by file path; counts go down as it happens. */
export interface Faults {
  /** The storage's connection breaks after so many bytes of an answer. */
  breakAfter: Map<string, { bytes: number; times: number }>;
  /** The storage sends other bytes of the same number. */
  corrupt: Map<string, number>;
  /** The storage falls silent after so many bytes. */
  silent: Map<string, { bytes: number; times: number }>;
  /** The storage refuses an address as expired. */
  expired: Map<string, number>;
  /** The storage gives files in whole only. */
  noRanges: boolean;
  /** The hub answers with this status so often, with Retry-After: 0. */
  busy: { status: number; times: number };
  /** The storage sends so many bytes per second and answer. */
  bytesPerSecond: number;
}

export const largeFile = (path: string, bytes: Buffer): HubTestFile => ({ path, bytes, isLarge: true });
export const smallFile = (path: string, text: string): HubTestFile => ({
  path,
  bytes: Buffer.from(text),
  isLarge: false,
});

export const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");
export const gitHash = (bytes: Uint8Array): string =>
  createHash("sha1").update(`blob ${bytes.byteLength}\0`).update(bytes).digest("hex");
export const objectOf = ({ bytes, isLarge }: HubTestFile): string =>
  isLarge ? sha256(bytes) : gitHash(bytes);

export const goodToken = "hf_good";
/** Known to the hub, but its account has not accepted any licence. */
export const strangerToken = "hf_stranger";

export class HubTestServer implements AsyncDisposable {
  readonly models = new Map<string, HubTestModel>();
  readonly datasets = new Map<string, HubTestModel>();
  readonly seen: SeenRequest[] = [];
  readonly faults: Faults = {
    breakAfter: new Map(),
    corrupt: new Map(),
    silent: new Map(),
    expired: new Map(),
    noRanges: false,
    busy: { status: 503, times: 0 },
    bytesPerSecond: Infinity,
  };
  /** Entries per page of a listing. */
  pageSize = 1000;
  /** The most requests to the storage at one moment. */
  mostAtOnce = 0;
  #atOnce = 0;
  readonly #hub: Server;
  readonly #storage: Server;
  readonly #signatures = new Map<string, HubTestFile>();

  private constructor() {
    this.#hub = createServer((request, response) => this.#answer(request, response));
    this.#storage = createServer((request, response) => void this.#store(request, response));
  }

  static async start(): Promise<HubTestServer> {
    const server = new HubTestServer();
    for (const one of [server.#hub, server.#storage])
      await new Promise<void>((resolve) => one.listen(0, "127.0.0.1", resolve));
    return server;
  }

  get endpoint(): string {
    return `http://127.0.0.1:${portOf(this.#hub)}`;
  }

  /** Requests to the storage for a file, as ranges. */
  rangesOf(path: string): (string | undefined)[] {
    return this.seen
      .filter((entry) => entry.server === "storage" && entry.path === path)
      .map(({ range }) => range);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const one of [this.#hub, this.#storage]) {
      one.closeAllConnections();
      await new Promise((resolve) => one.close(resolve));
    }
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const url = new URL(request.url ?? "/", this.endpoint);
    const path = decodeURIComponent(url.pathname);
    const parts = (pattern: RegExp): string[] | undefined =>
      pattern.exec(url.pathname)?.map((part) => decodeURIComponent(part ?? ""));
    const token = /^Bearer (.*)$/.exec(request.headers.authorization ?? "")?.[1];
    this.seen.push({
      server: "hub",
      method: request.method ?? "",
      path,
      range: request.headers.range,
      token,
    });
    const { busy } = this.faults;
    if (busy.times > 0) {
      busy.times--;
      response.writeHead(busy.status, { "retry-after": "0" }).end();
      return;
    }
    if (token !== undefined && token !== goodToken && token !== strangerToken)
      return refuse(response, 401, undefined, "Invalid credentials in Authorization header");
    const api = parts(/^\/api\/(?:models|datasets)\/(.+?)(?:\/(revision|tree|paths-info)\/([^/]+))?$/);
    const file = parts(/^\/(?:datasets\/)?(.+?)\/resolve\/([^/]+)\/(.+)$/);
    const name = api?.[1] ?? file?.[1] ?? "";
    const ofKind = /^\/(?:api\/)?datasets\//.test(url.pathname) ? this.datasets : this.models;
    const model = ofKind.get(name);
    if (model === undefined || (model.isPrivate === true && token !== goodToken))
      return refuse(response, token === undefined ? 401 : 404, "RepoNotFound", "Repository not found");
    const named = api?.[3] ?? file?.[2] ?? "";
    const revision = named === "" ? "main" : named;
    const commit = revision === "main" || revision === model.commit ? model.commit : model.refs?.[revision];
    if (commit === undefined) return refuse(response, 404, "RevisionNotFound", `Invalid rev id: ${revision}`);
    if (file !== undefined) return this.#resolve(response, { model, name, path: file[3], token, request });
    if (api?.[2] === "tree") return this.#tree(response, model, url);
    if (api?.[2] === "paths-info") return void this.#paths(request, response, model);
    sendJson(response, {
      id: name,
      sha: commit,
      private: model.isPrivate ?? false,
      gated: model.gated ?? false,
      cardData: model.cardData ?? {},
      tags: typeof model.cardData?.["license"] === "string" ? [`license:${model.cardData["license"]}`] : [],
      siblings: model.files.map(({ path }) => ({ rfilename: path })),
    });
  }

  #tree(response: ServerResponse, model: HubTestModel, url: URL): void {
    const start = Number(url.searchParams.get("cursor") ?? 0);
    const page = model.files.slice(start, start + this.pageSize);
    if (start + this.pageSize < model.files.length) {
      url.searchParams.set("cursor", String(start + this.pageSize));
      response.setHeader("link", `<${url.href}>; rel="next"`);
    }
    const folders = new Set(page.map(({ path }) => path.split("/").slice(0, -1).join("/")));
    folders.delete("");
    sendJson(response, [
      ...[...folders].map((path) => ({ type: "directory", oid: gitHash(Buffer.from(path)), size: 0, path })),
      ...page.map(entryOf),
    ]);
  }

  /** Entries of the files that the request's body names; the npm client asks file by file. */
  async #paths(request: IncomingMessage, response: ServerResponse, model: HubTestModel): Promise<void> {
    let body = "";
    for await (const piece of request) body += String(piece);
    const { paths } = JSON.parse(body) as { paths: string[] };
    const lastCommit = { id: model.commit, title: "", date: "2026-01-01T00:00:00.000Z" };
    sendJson(
      response,
      model.files
        .filter(({ path }) => paths.includes(path))
        .map((file) => ({ ...entryOf(file), lastCommit })),
    );
  }

  #resolve(
    response: ServerResponse,
    asked: {
      model: HubTestModel;
      name: string;
      path: string;
      token: string | undefined;
      request: IncomingMessage;
    },
  ): void {
    const { model, name, path, token, request } = asked;
    if (typeof model.gated === "string" && token !== goodToken) {
      const page = `Access to model ${name} is restricted.`;
      return refuse(response, token === undefined ? 401 : 403, "GatedRepo", page);
    }
    const file = model.files.find((file) => file.path === path);
    if (file === undefined) return refuse(response, 404, "EntryNotFound", "Entry not found");
    response.setHeader("x-repo-commit", model.commit);
    response.setHeader("accept-ranges", "bytes");
    if (file.isLarge) {
      const signature = `${this.#signatures.size}`;
      this.#signatures.set(signature, file);
      const location = `http://127.0.0.1:${portOf(this.#storage)}/${signature}`;
      response.writeHead(302, {
        location,
        "x-linked-etag": `"${objectOf(file)}"`,
        "x-linked-size": file.bytes.byteLength,
      });
      response.end();
      return;
    }
    const part = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "");
    const sent = part === null ? file.bytes : file.bytes.subarray(Number(part[1]), Number(part[2]) + 1);
    response.writeHead(part === null ? 200 : 206, {
      etag: `"${objectOf(file)}"`,
      "content-length": sent.byteLength,
      ...(part === null ? {} : { "content-range": `bytes ${part[1]}-${part[2]}/${file.bytes.byteLength}` }),
    });
    response.end(request.method === "HEAD" ? undefined : sent);
  }

  async #store(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const file = this.#signatures.get((request.url ?? "").slice(1));
    const token = request.headers.authorization;
    if (file === undefined) return void response.writeHead(403).end();
    const { path, bytes } = file;
    this.seen.push({
      server: "storage",
      method: request.method ?? "",
      path,
      range: request.headers.range,
      token,
    });
    if (take(this.faults.expired, path)) return void response.writeHead(403).end();
    const range = this.faults.noRanges ? null : /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
    const start = Number(range?.[1] ?? 0);
    const end = range?.[2] === undefined || range[2] === "" ? bytes.byteLength : Number(range[2]) + 1;
    response.writeHead(range === null ? 200 : 206, {
      etag: `"${objectOf(file)}"`,
      "content-length": end - start,
      ...(range === null ? {} : { "content-range": `bytes ${start}-${end - 1}/${bytes.byteLength}` }),
    });
    if (request.method === "HEAD") return void response.end();
    let body = bytes.subarray(start, end);
    if (take(this.faults.corrupt, path)) body = Buffer.from(body.map((byte) => byte ^ 1));
    this.mostAtOnce = Math.max(this.mostAtOnce, ++this.#atOnce);
    await this.#send(response, path, body);
  }

  async #send(response: ServerResponse, path: string, body: Buffer): Promise<void> {
    const broken = cut(this.faults.breakAfter, path);
    const silent = cut(this.faults.silent, path);
    const length = Math.min(body.byteLength, broken ?? Infinity, silent ?? Infinity);
    const { bytesPerSecond } = this.faults;
    const pieceBytes = Number.isFinite(bytesPerSecond) ? Math.ceil(bytesPerSecond / 20) : 1 << 16;
    for (let offset = 0; offset < length; offset += pieceBytes) {
      // Counted before the last bytes go out: who has read them may ask for more at once.
      if (offset + pieceBytes >= length) this.#atOnce--;
      response.write(body.subarray(offset, Math.min(length, offset + pieceBytes)));
      if (Number.isFinite(bytesPerSecond)) await new Promise((resolve) => setTimeout(resolve, 50));
      if (response.destroyed) {
        if (offset + pieceBytes < length) this.#atOnce--;
        return;
      }
    }
    if (length <= 0) this.#atOnce--;
    if (silent !== undefined && length < body.byteLength) return;
    if (broken !== undefined && length < body.byteLength) {
      // Let what was written reach the wire before the line is cut.
      setTimeout(() => response.destroy(), 20);
      return;
    }
    response.end();
  }
}

function entryOf(file: HubTestFile) {
  const { path, bytes, isLarge } = file;
  const lfs = { oid: objectOf(file), size: bytes.byteLength, pointerSize: 134 };
  return {
    type: "file",
    oid: gitHash(isLarge ? Buffer.from(`pointer to ${lfs.oid}`) : bytes),
    size: bytes.byteLength,
    path,
    ...(isLarge ? { lfs } : {}),
  };
}

const portOf = (server: Server): number => (server.address() as AddressInfo).port;

function take(counts: Map<string, number>, path: string): boolean {
  const left = counts.get(path) ?? 0;
  if (left > 0) counts.set(path, left - 1);
  return left > 0;
}

function cut(faults: Map<string, { bytes: number; times: number }>, path: string): number | undefined {
  const fault = faults.get(path);
  if (fault === undefined || fault.times === 0) return undefined;
  fault.times--;
  return fault.bytes;
}

function refuse(response: ServerResponse, status: number, code: string | undefined, message: string): void {
  response.writeHead(status, {
    ...(code === undefined ? {} : { "x-error-code": code }),
    "x-error-message": message,
    "content-type": "application/json",
  });
  response.end(JSON.stringify({ error: message }));
}

function sendJson(response: ServerResponse, value: unknown): void {
  response.setHeader("content-type", "application/json; charset=utf-8");
  response.end(JSON.stringify(value));
}
