/** Bodies of requests: read up to the limit, as bytes or as JSON. */
import { messageOf } from "../../../base/index.ts";
import { Refusal } from "../refusal.ts";
import type { ServerContext } from "../serverContext.ts";
import type { HttpContext } from "./environment.ts";

/** The whole body. Throws a refusal (413) once it is larger than the server's limit, whatever its header says. */
export async function readBody(server: ServerContext, c: HttpContext): Promise<Uint8Array> {
  const { bodyLimitBytes } = server.options;
  const claimed = Number(c.req.header("content-length") ?? 0);
  if (claimed > bodyLimitBytes) throw tooLarge(bodyLimitBytes, claimed);
  const { body } = c.req.raw;
  if (body === null) return new Uint8Array(0);
  const parts: Uint8Array[] = [];
  let numBytes = 0;
  try {
    for await (const part of body) {
      numBytes += part.byteLength;
      if (numBytes > bodyLimitBytes) throw tooLarge(bodyLimitBytes, numBytes);
      parts.push(part);
    }
  } catch (error) {
    if (error instanceof Refusal) throw error;
    throw new Refusal(400, `expected a whole body, got ${messageOf(error)}`, { cause: error });
  }
  return parts.length === 1 ? parts[0] : Buffer.concat(parts, numBytes);
}

function tooLarge(limitBytes: number, got: number): Refusal {
  return new Refusal(413, `expected a body of at most ${limitBytes} bytes, got ${got}`, {
    hint: "raise --body-limit",
    reason: "body_too_large",
  });
}

const utf8 = new TextDecoder("utf-8", { fatal: true });

/** The body as JSON in UTF-8. Throws a refusal: 400, 413. */
export async function readJsonBody(server: ServerContext, c: HttpContext): Promise<unknown> {
  const bytes = await readBody(server, c);
  let text: string;
  try {
    text = utf8.decode(bytes);
  } catch (error) {
    throw new Refusal(400, "expected a body in UTF-8, got bytes that are not", { cause: error });
  }
  try {
    return JSON.parse(text);
  } catch (error) {
    // The parser's words quote the body, which may be a prompt: clients see them, the log does not.
    throw new Refusal(400, `expected a body in JSON, got ${messageOf(error)}`, { reason: "invalid_json" });
  }
}
