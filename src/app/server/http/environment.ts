/** What Hono's handlers of this server share. */
import type { HttpBindings } from "@hono/node-server";
import type { Context, Hono } from "hono";
import type { RequestContext } from "../requestContext.ts";

/** Of a request that came over a socket. */
export interface SocketBindings extends HttpBindings {
  /** Sends the body of an answer whose headers are complete; set by its route, called by the listener. */
  send?: (response: Response) => void;
}

export interface HttpEnvironment {
  /** Absent where the app is called without a socket. */
  Bindings: Partial<SocketBindings>;
  Variables: { request: RequestContext };
}

export type HttpApp = Hono<HttpEnvironment>;
export type HttpContext = Context<HttpEnvironment>;
