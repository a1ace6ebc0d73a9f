/** What Hono's handlers of this server share. */
import type { HttpBindings } from "@hono/node-server";
import type { Context, Hono } from "hono";
import type { RequestContext } from "../requestContext.ts";

export interface HttpEnvironment {
  /** Absent where the app is called without a socket. */
  Bindings: Partial<HttpBindings>;
  Variables: { request: RequestContext };
}

export type HttpApp = Hono<HttpEnvironment>;
export type HttpContext = Context<HttpEnvironment>;
