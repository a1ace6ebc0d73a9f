/**
 * Server-sent events: lines made one by one as their reader takes them. Where there is a socket they are written to Node's own response,
 * which costs a token less than a web stream does (docs/log.md, "Server: a token's cost").
 */
import { once } from "node:events";
import type { ServerResponse } from "node:http";
import type { createAdaptorServer, HttpBindings } from "@hono/node-server";
import { RESPONSE_ALREADY_SENT } from "@hono/node-server/utils/response";
import type { RequestContext } from "../requestContext.ts";
import type { HttpApp, HttpContext, SocketBindings } from "./environment.ts";

type FetchCallback = Parameters<typeof createAdaptorServer>[0]["fetch"];

/** Text of one or more events. Lines must not throw: what goes wrong midway is a line of its own. */
export type EventLines = AsyncGenerator<string, void, undefined>;

const utf8 = new TextEncoder();

const eventStreamHeaders = {
  "content-type": "text/event-stream; charset=utf-8",
  "cache-control": "no-cache, no-transform",
  // nginx and its kin would gather answers before passing them on.
  "x-accel-buffering": "no",
};

export function eventLine(data: unknown): string {
  return `data: ${typeof data === "string" ? data : JSON.stringify(data)}\n\n`;
}

/** The answer that consists of `lines`. When its reader goes away the request is aborted, which ends the lines too. */
export function eventAnswer(c: HttpContext, lines: EventLines): Response {
  const context = c.get("request");
  // Without a socket, as in app.request(), Hono gives no bindings at all.
  const bindings: Partial<SocketBindings> | undefined = c.env;
  const outgoing = bindings?.outgoing;
  if (bindings === undefined || outgoing === undefined)
    return c.body(webStream(context, lines), 200, eventStreamHeaders);
  bindings.send = ({ status, headers }) => {
    outgoing.writeHead(status, Object.fromEntries(headers));
    outgoing.flushHeaders();
    void pump(outgoing, context, lines);
  };
  return c.body(null, 200, eventStreamHeaders);
}

/** What listens hands requests to: the app, and where a route sends its answer itself, that once every header is there. */
export function fetchOf(app: HttpApp): FetchCallback {
  return async (request, given) => {
    // Only servers of HTTP/1.1 are made here.
    const bindings: SocketBindings = { ...(given as HttpBindings) };
    const response = await app.fetch(request, bindings);
    if (bindings.send === undefined) return response;
    bindings.send(response);
    return RESPONSE_ALREADY_SENT;
  };
}

async function pump(outgoing: ServerResponse, context: RequestContext, lines: EventLines): Promise<void> {
  try {
    for await (const line of lines) {
      if (outgoing.destroyed) return;
      if (!outgoing.write(line)) await room(outgoing);
    }
    if (outgoing.destroyed) return;
    outgoing.end();
    context.finish(200);
  } catch (error) {
    context.finish(500, error);
    outgoing.destroy();
  }
}

/** Until a slow reader has taken what was written, or has gone away. */
async function room(outgoing: ServerResponse): Promise<void> {
  const given = new AbortController();
  const { signal } = given;
  try {
    await Promise.race([once(outgoing, "drain", { signal }), once(outgoing, "close", { signal })]);
  } finally {
    given.abort();
  }
}

function webStream(context: RequestContext, lines: EventLines): ReadableStream<Uint8Array> {
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const { done, value } = await lines.next();
        if (done === true) {
          controller.close();
          context.finish(200);
        } else controller.enqueue(utf8.encode(value));
      },
      async cancel() {
        context.abortGone();
        await lines.return();
        context.finish(499);
      },
    },
    // Nothing is made before it is asked for.
    { highWaterMark: 0 },
  );
}
