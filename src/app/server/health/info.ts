/** `/info` and `/statistics`: the models and their load as JSON. */
import { serverInfoSchema, serverStatisticsSchema } from "../../api/serverInfo.ts";
import type { ModelDetails, ServerStatistics } from "../../api/serverInfo.ts";
import type { HttpApp } from "../http/environment.ts";
import type { DescribedRoute } from "../openapi/document.ts";
import type { ServedModel } from "../servedModel.ts";
import type { ServerContext } from "../serverContext.ts";

export const infoRoutes: readonly DescribedRoute[] = [
  {
    method: "get",
    path: "/info",
    tag: "Server",
    summary: "The models in detail",
    response: serverInfoSchema,
  },
  {
    method: "get",
    path: "/statistics",
    tag: "Server",
    summary: "The load",
    response: serverStatisticsSchema,
  },
  { method: "get", path: "/health", tag: "Server", summary: "Whether it lives", isOpen: true },
  { method: "get", path: "/ready", tag: "Server", summary: "Whether it takes work on", isOpen: true },
  {
    method: "get",
    path: "/metrics",
    tag: "Server",
    summary: "Metrics for Prometheus",
    mediaType: "text/plain",
  },
];

function detailsOf({ name, engine, chatTemplates, card, license, created }: ServedModel): ModelDetails {
  const { adapters, ...facts } = engine.info;
  return {
    name,
    ...facts,
    adapters: [...adapters],
    hasChatTemplate: chatTemplates !== undefined && chatTemplates.names.length > 0,
    card: card ?? null,
    license: license ?? null,
    created,
  };
}

function statisticsOf({ models, metrics, admission }: ServerContext): ServerStatistics {
  const { p50, p99 } = metrics.eventLoopDelay();
  return {
    models: models.list().map(({ name, engine }) => {
      const statistics = engine.statistics();
      return {
        model: name,
        tokensPerSecond: metrics.tokensPerSecond(name),
        numRunning: statistics.numRunning,
        numWaiting: statistics.numWaiting,
        numBlocks: statistics.numBlocks,
        numUsedBlocks: statistics.numUsedBlocks,
        numGeneratedTokens: statistics.numGeneratedTokens,
        numPromptTokens: statistics.numPromptTokens,
        numCachedPromptTokens: statistics.numCachedPromptTokens,
      };
    }),
    queueDepth: admission.numWaiting,
    eventLoopDelayMs: { p50: p50 * 1000, p99: p99 * 1000 },
  };
}

export function mountInfo(app: HttpApp, server: ServerContext): void {
  app.get("/info", (c) => c.json({ version: server.version, models: server.models.list().map(detailsOf) }));
  app.get("/statistics", (c) => c.json(statisticsOf(server)));
}
