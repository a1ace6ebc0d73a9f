/** What the protocol's HTTP routes read of a request. */
import { promisify } from "node:util";
import { gunzip, inflate } from "node:zlib";
import { messageOf } from "../../../base/index.ts";
import { readBody } from "../http/body.ts";
import type { HttpContext } from "../http/environment.ts";
import { Refusal } from "../refusal.ts";
import type { InferTarget, InferenceService } from "./service.ts";

/** The model that a path names. */
export function targetOf(c: HttpContext): InferTarget {
  return { name: c.req.param("model") ?? "", version: c.req.param("version") };
}

const decompressors = { gzip: promisify(gunzip), deflate: promisify(inflate) };

/** The body, decompressed where it says so. Throws a refusal: 400, 413, 415. */
export async function readTensorBody(c: HttpContext, { server }: InferenceService): Promise<Uint8Array> {
  const bytes = await readBody(server, c);
  const encoding = c.req.header("content-encoding");
  if (encoding === undefined || encoding === "identity") return bytes;
  if (encoding !== "gzip" && encoding !== "deflate")
    throw new Refusal(415, `expected content-encoding gzip or deflate, got '${encoding.slice(0, 40)}'`);
  const { bodyLimitBytes } = server.options;
  try {
    return await decompressors[encoding](bytes, { maxOutputLength: bodyLimitBytes });
  } catch (cause) {
    if (cause instanceof RangeError)
      throw new Refusal(413, `expected a body of at most ${bodyLimitBytes} bytes, got more`, { cause });
    throw new Refusal(400, `expected a body in ${encoding}, got ${messageOf(cause)}`, { cause });
  }
}
