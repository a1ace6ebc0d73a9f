/** The server's OpenAPI document, made from the schemas that requests are parsed with. Source: OpenAPI 3.1, JSON Schema 2020-12. */
import { z } from "zod";

export interface DescribedRoute {
  method: "get" | "post";
  /** As OpenAPI writes it: "/v1/models/{name}". */
  path: string;
  tag: string;
  summary: string;
  request?: z.ZodType;
  response?: z.ZodType;
  /** Of a streamed answer, event by event. */
  event?: z.ZodType;
  /** Of answers that refuse, where the route's protocol has its own. */
  error?: z.ZodType;
  /** Of answers that are no JSON. */
  mediaType?: string;
  /** Whether callers without a key may ask it. */
  isOpen?: boolean;
}

export interface DocumentOptions {
  version: string;
  /** Whether callers need a key. */
  needsKey: boolean;
  /** Of answers that refuse. */
  errorSchema: z.ZodType;
}

type Json = Record<string, unknown>;

function schemaOf(schema: z.ZodType, io: "input" | "output"): Json {
  const { $schema: _dialect, ...rest } = z.toJSONSchema(schema, { io, unrepresentable: "any" });
  return rest;
}

function operationOf(route: DescribedRoute, { needsKey, errorSchema }: DocumentOptions): Json {
  const { tag, summary, request, response, event, mediaType = "application/json", isOpen = false } = route;
  const parameters = [...route.path.matchAll(/\{(\w+)\}/g)].map(([, name]) => ({
    name,
    in: "path",
    required: true,
    schema: { type: "string" },
  }));
  const content = {
    [mediaType]: response === undefined ? {} : { schema: schemaOf(response, "output") },
    ...(event === undefined ? {} : { "text/event-stream": { schema: schemaOf(event, "output") } }),
  };
  return {
    tags: [tag],
    summary,
    operationId: `${route.method}${route.path.replaceAll(/[^A-Za-z0-9]+(.)?/g, (_, next?: string) => next?.toUpperCase() ?? "")}`,
    ...(parameters.length === 0 ? {} : { parameters }),
    ...(request === undefined
      ? {}
      : {
          requestBody: {
            required: true,
            content: { "application/json": { schema: schemaOf(request, "input") } },
          },
        }),
    responses: {
      "200": { description: "Done", content },
      default: {
        description: "Refused, or failed",
        content: { "application/json": { schema: schemaOf(route.error ?? errorSchema, "output") } },
      },
    },
    security: needsKey && !isOpen ? [{ key: [] }] : [],
  };
}

/** The document of these routes. */
export function openApiDocument(routes: readonly DescribedRoute[], options: DocumentOptions): Json {
  const paths: Record<string, Json> = {};
  for (const route of routes) (paths[route.path] ??= {})[route.method] = operationOf(route, options);
  return {
    openapi: "3.1.0",
    info: {
      title: "Nautilus",
      version: options.version,
      description: "Language models behind OpenAI's routes and the KServe v2 protocol",
      license: { name: "Apache-2.0", identifier: "Apache-2.0" },
    },
    servers: [{ url: "/" }],
    tags: [...new Set(routes.map(({ tag }) => tag))].map((name) => ({ name })),
    paths,
    components: { securitySchemes: { key: { type: "http", scheme: "bearer" } } },
  };
}
