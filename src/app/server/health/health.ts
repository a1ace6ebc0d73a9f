/** Whether the server lives and takes work on, and its metrics. */
import type { HttpApp } from "../http/environment.ts";
import type { ServerContext } from "../serverContext.ts";

export function mountHealth(app: HttpApp, server: ServerContext): void {
  app.get("/health", (c) => c.json({ status: "ok" }));
  // NeMo's FastAPI service asks under these names.
  app.get("/v1/health", (c) => c.json({ status: "ok" }));
  app.get("/ready", (c) => c.json(readiness(server), server.isDraining ? 503 : 200));
  app.get("/v1/triton_health", (c) => c.json(readiness(server), server.isDraining ? 503 : 200));
  app.get("/metrics", async (c) => {
    const { registry } = server.metrics;
    return c.body(await registry.metrics(), 200, { "content-type": registry.contentType });
  });
}

function readiness({ isDraining, models }: ServerContext) {
  return { status: isDraining ? "draining" : "ready", models: models.list().map(({ name }) => name) };
}
