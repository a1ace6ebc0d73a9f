/** What every HTTP request passes through: its context and log line, headers that keep browsers safe, CORS, API keys. */
import type { HttpBindings } from "@hono/node-server";
import { cors } from "hono/cors";
import type { MiddlewareHandler } from "hono";
import { RequestContext } from "../requestContext.ts";
import type { Protocol } from "../requestContext.ts";
import type { ServerContext } from "../serverContext.ts";
import type { HttpContext, HttpEnvironment } from "./environment.ts";

type Middleware = MiddlewareHandler<HttpEnvironment>;

/** Paths that anybody may ask: probes, and the page itself, which asks its user for a key. */
const openPaths =
  /^\/($|index\.html$|assets\/|favicon|health$|ready$|v1\/health\/?$|v1\/triton_health\/?$|v2\/health\/)/;

export function protocolOf(path: string): Protocol {
  if (path === "/v2" || path.startsWith("/v2/")) return "kserve";
  return path.startsWith("/v1/") ? "openai" : "other";
}

/** Makes the request's context, and finishes it when the answer is complete or the client is gone. */
export function withRequestContext(server: ServerContext): Middleware {
  return async (c, next) => {
    // Without a socket, as in app.request(), Hono gives no bindings at all.
    const bindings: Partial<HttpBindings> | undefined = c.env;
    const outgoing = bindings?.outgoing;
    const context = new RequestContext(server, {
      id: c.req.header("x-request-id"),
      protocol: protocolOf(c.req.path),
      route: routeOf(c),
      signal: outgoing === undefined ? c.req.raw.signal : undefined,
    });
    c.set("request", context);
    outgoing?.once("close", () => {
      if (!outgoing.writableFinished) context.abortGone();
      context.finish(outgoing.writableFinished ? outgoing.statusCode : 499);
    });
    await next();
    c.header("x-request-id", context.id);
    // A stream ends its request itself.
    const isStream = c.res.headers.get("content-type")?.startsWith("text/event-stream") === true;
    if (outgoing === undefined && !isStream) context.finish(c.res.status);
  };
}

/** The pattern that matched: no client can make up new ones. */
function routeOf(c: HttpContext): string {
  const own = c.req.matchedRoutes.findLast(({ path, method }) => method !== "ALL" && !path.endsWith("*"));
  return own?.path ?? "unmatched";
}

/** Nothing of a page may come from, or go to, another place. Answers are not for other pages to frame or guess at. */
export const safeHeaders: Middleware = async (c, next) => {
  await next();
  c.header("x-content-type-options", "nosniff");
  c.header("referrer-policy", "no-referrer");
  c.header("cross-origin-resource-policy", "same-origin");
};

export function withCors(server: ServerContext): Middleware {
  const { corsOrigins } = server.options;
  return cors({
    origin: corsOrigins.includes("*") ? "*" : [...corsOrigins],
    allowMethods: ["GET", "POST", "OPTIONS"],
    exposeHeaders: ["x-request-id", "retry-after"],
    maxAge: 600,
  });
}

export function withApiKeys(server: ServerContext): Middleware {
  return async (c, next) => {
    if (!openPaths.test(c.req.path)) {
      server.apiKeys.check(c.req.header("authorization") ?? c.req.header("triton-access-token"));
    }
    await next();
  };
}
