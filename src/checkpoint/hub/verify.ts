/** Whether a file's bytes are those that the hub named: sha256 for large files, git's blob hash for small ones. */
import { createHash } from "node:crypto";
import { createReadStream, statSync } from "node:fs";
import { HubError } from "../../base/index.ts";

const gitHashLength = 40;

/** The hash of a file in the form of `object`. `onBytes` hears of progress. */
export async function objectNameOf(
  path: string,
  object: string,
  { signal, onBytes }: { signal?: AbortSignal; onBytes?: (bytes: number) => void } = {},
): Promise<string> {
  const isGit = object.length === gitHashLength;
  const hash = createHash(isGit ? "sha1" : "sha256");
  if (isGit) hash.update(`blob ${statSync(path).size}\0`);
  const stream = createReadStream(path, { highWaterMark: 1 << 20, signal });
  for await (const bytes of stream as AsyncIterable<Buffer>) {
    hash.update(bytes);
    onBytes?.(bytes.byteLength);
  }
  return hash.digest("hex");
}

export function checksumError(label: string, expected: string, found: string): HubError {
  const kind = expected.length === gitHashLength ? "git hash" : "sha256";
  return new HubError("hub", `${label}: expected ${kind} ${expected}, got ${found}`, {
    hint: "the bytes were damaged on the way and thrown away; run the same command again, or set another HF_ENDPOINT",
    fields: { label, expected, found },
  });
}
