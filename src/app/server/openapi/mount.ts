/** `GET /openapi.json`. */
import { errorSchema } from "../../api/openai/index.ts";
import type { HttpApp } from "../http/environment.ts";
import type { ServerContext } from "../serverContext.ts";
import { openApiDocument } from "./document.ts";
import type { DescribedRoute } from "./document.ts";

export function mountOpenApi(app: HttpApp, server: ServerContext, routes: readonly DescribedRoute[]): void {
  let document: Record<string, unknown> | undefined;
  app.get("/openapi.json", (c) => {
    document ??= openApiDocument(routes, {
      version: server.version,
      needsKey: server.apiKeys.isRequired,
      errorSchema,
    });
    return c.json(document);
  });
}
