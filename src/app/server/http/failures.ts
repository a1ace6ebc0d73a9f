/** Errors as answers, in the shape of the protocol whose route was asked. */
import type { ContentfulStatusCode } from "hono/utils/http-status";
import { failureOf, Refusal } from "../refusal.ts";
import type { Failure } from "../refusal.ts";
import { protocolOf } from "./middleware.ts";
import type { HttpApp, HttpContext } from "./environment.ts";

/** OpenAI's words for the kinds of errors. */
function typeOf(status: number): string {
  if (status === 401 || status === 403) return "authentication_error";
  if (status === 404) return "not_found_error";
  if (status === 429) return "rate_limit_error";
  return status >= 500 ? "server_error" : "invalid_request_error";
}

/** `{ error: { message, type, param, code } }`, as OpenAI's clients expect. */
export function openAiErrorBody({ status, message, parameter, reason }: Failure) {
  return { error: { message, type: typeOf(status), param: parameter ?? null, code: reason ?? null } };
}

function answer(c: HttpContext, failure: Failure): Response {
  const { retryAfterSeconds, status, message } = failure;
  if (retryAfterSeconds !== undefined) c.header("retry-after", String(retryAfterSeconds));
  if (status === 401) c.header("www-authenticate", "Bearer");
  const body = protocolOf(c.req.path) === "kserve" ? { error: message } : openAiErrorBody(failure);
  // 499 is no registered status, but the one that proxies log for a client that went away.
  return c.json(body, status as ContentfulStatusCode);
}

/** Routes the app's errors and unknown paths to answers. */
export function mountFailures(app: HttpApp): void {
  app.onError((error, c) => {
    const failure = failureOf(error);
    if (failure.status === 500) c.get("request").log.error({ id: c.get("request").id, err: error }, "fault");
    return answer(c, failure);
  });
  app.notFound((c) =>
    answer(
      c,
      failureOf(
        new Refusal(404, `expected a route of this server, got ${c.req.method} ${c.req.path.slice(0, 200)}`, {
          hint: "GET /openapi.json lists them",
          reason: "unknown_route",
        }),
      ),
    ),
  );
}
