/**
 * Which algorithm was fastest for a product, kept on disk per GPU model and library version, so that a shape is timed once per
 * machine. Knows keys, bytes and files; nothing of how products run. A broken or foreign file counts as none.
 */
import { existsSync, readFileSync } from "node:fs";
import { cacheFolder, writeText } from "../../base/index.ts";
import { algorithmBytes } from "./cublaslt.ts";

export interface TimedAlgorithm {
  readonly bytes: Uint8Array;
  readonly microseconds: number;
}

/** Of the search; entries of an earlier one are timed again. */
const searchVersion = 4;

export class AlgorithmCache {
  readonly path: string;
  #entries: Map<string, TimedAlgorithm> | undefined;

  constructor(gpuName: string, libraryVersion: number) {
    const name = gpuName.toLowerCase().replaceAll(/[^a-z0-9]+/g, "-");
    this.path = cacheFolder("cuda", `matmul-v${searchVersion}-${name}-${libraryVersion}.json`);
  }

  get(key: string): TimedAlgorithm | undefined {
    this.#entries ??= read(this.path);
    return this.#entries.get(key);
  }

  /** Adds an entry and writes the file, with what other processes have added meanwhile. */
  set(key: string, algorithm: TimedAlgorithm): void {
    this.#entries = new Map([...read(this.path), ...(this.#entries ?? []), [key, algorithm]]);
    const content: Record<string, [algorithm: string, microseconds: number]> = {};
    for (const [name, { bytes, microseconds }] of this.#entries)
      content[name] = [Buffer.from(bytes).toString("hex"), Math.round(microseconds * 100) / 100];
    writeText("cuda", this.path, `${JSON.stringify(content, undefined, 1)}\n`);
  }
}

function read(path: string): Map<string, TimedAlgorithm> {
  const entries = new Map<string, TimedAlgorithm>();
  if (!existsSync(path)) return entries;
  let content: unknown;
  try {
    content = JSON.parse(readFileSync(path, "utf8"));
  } catch {
    return entries;
  }
  if (typeof content !== "object" || content === null) return entries;
  for (const [key, value] of Object.entries(content) as [string, unknown][]) {
    if (!Array.isArray(value)) continue;
    const [algorithm, microseconds] = value as unknown[];
    if (typeof algorithm !== "string" || typeof microseconds !== "number") continue;
    const bytes = Uint8Array.from(Buffer.from(algorithm, "hex"));
    if (bytes.byteLength === algorithmBytes) entries.set(key, { bytes, microseconds });
  }
  return entries;
}

/**
 * Timed algorithms by their products' keys but for the number of rows, with which a key begins: what is best for 4,096 rows is good for 4,085,
 * which nobody times. Of several numbers of rows that are near the largest counts.
 */
export class NearbyAlgorithms {
  readonly #byRows = new Map<string, Map<number, Uint8Array<ArrayBuffer>>>();

  add(key: string, numRows: number, bytes: Uint8Array<ArrayBuffer>): void {
    const rowless = rowlessKey(key);
    const known = this.#byRows.get(rowless);
    if (known === undefined) this.#byRows.set(rowless, new Map([[numRows, bytes]]));
    else known.set(numRows, bytes);
  }

  /** Of less than twice as many rows and more than half as many. */
  get(key: string, numRows: number): Uint8Array<ArrayBuffer> | undefined {
    const known = this.#byRows.get(rowlessKey(key));
    if (known === undefined) return undefined;
    const near = [...known.keys()].filter((other) => 2 * numRows > other && numRows < 2 * other);
    return near.length === 0 ? undefined : known.get(Math.max(...near));
  }
}

function rowlessKey(key: string): string {
  return key.slice(key.indexOf(" "));
}
