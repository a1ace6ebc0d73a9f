/** The OpenAPI document: valid by OpenAPI's own schema, true of the routes that are, and complete for those of both protocols. */
import { Validator } from "@seriousme/openapi-schema-validator";
import { Ajv2020 } from "ajv/dist/2020.js";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import type { NautilusServer } from "../../src/app/server/server.ts";
import { fakeServer } from "./fakeServer.ts";

const contentSchema = z.record(z.string(), z.looseObject({ schema: z.looseObject({}).optional() }));
const operationSchema = z.looseObject({
  requestBody: z.looseObject({ content: contentSchema }).optional(),
  responses: z.record(z.string(), z.looseObject({ content: contentSchema })),
});
const documentSchema = z.looseObject({ paths: z.record(z.string(), z.record(z.string(), operationSchema)) });

async function documentOf(server: NautilusServer): Promise<z.output<typeof documentSchema>> {
  return documentSchema.parse(await (await server.app.request("/openapi.json")).json());
}

const filled = (path: string): string =>
  path.replace("{name}", "fake").replace("{model}", "fake").replace("{version}", "1");

describe("openapi.json", () => {
  it.each([[[]], [["a-key"]]])("is valid by the schema of OpenAPI 3.1, with keys %j", async (apiKeys) => {
    await using server = fakeServer({ options: { apiKeys } });
    const headers = { authorization: "Bearer a-key" };
    const document: unknown = await (await server.app.request("/openapi.json", { headers })).json();
    const validator = new Validator();
    const { valid, errors } = await validator.validate(document as Record<string, unknown>);
    expect(errors).toBeUndefined();
    expect(valid).toBe(true);
    expect(validator.version).toBe("3.1");
    const broken = { ...(document as object), paths: { v2: {} } };
    expect((await new Validator().validate(broken)).valid).toBe(false);
  });

  it("names routes that are, with answers of the schemas that it gives", async () => {
    await using server = fakeServer();
    const ajv = new Ajv2020({ strict: false, formats: { byte: true } });
    for (const [path, operations] of Object.entries((await documentOf(server)).paths)) {
      for (const [method, { requestBody, responses }] of Object.entries(operations)) {
        const isAsked = requestBody !== undefined;
        const init = { method: method.toUpperCase(), ...(isAsked ? { body: "[]" } : {}) };
        const answer = await server.app.request(filled(path), init);
        expect([method, path, answer.status]).toEqual([method, path, isAsked ? 400 : 200]);
        const schema = responses[isAsked ? "default" : "200"].content["application/json"]?.schema;
        if (schema === undefined) continue;
        const check = ajv.compile(schema);
        check(await answer.json());
        expect([path, check.errors]).toEqual([path, null]);
      }
    }
  });

  it("says of inference what it answers", async () => {
    await using server = fakeServer();
    const { paths } = await documentOf(server);
    const inputs = [{ name: "prompts", datatype: "BYTES", shape: [1, 1], data: ["Ship"] }];
    const bodies: Record<string, object> = {
      infer: { inputs },
      generate: { text_input: "Ship", max_tokens: 3 },
    };
    for (const [name, body] of Object.entries(bodies)) {
      const path = `/v2/models/{model}/${name}`;
      const { post } = paths[path];
      const ajv = new Ajv2020({ strict: false });
      expect(ajv.validate(post.requestBody?.content["application/json"].schema ?? false, body)).toBe(true);
      const answer = await server.app.request(filled(path), { method: "POST", body: JSON.stringify(body) });
      expect(answer.status).toBe(200);
      const schema = post.responses["200"].content["application/json"].schema ?? false;
      expect(ajv.validate(schema, await answer.json())).toBe(true);
    }
  });

  it("leaves out no route of a protocol but those that always refuse, and those of shared memory", async () => {
    await using server = fakeServer();
    const { paths } = await documentOf(server);
    const named = new Set(
      Object.entries(paths).flatMap(([path, operations]) =>
        Object.keys(operations).map((method) => `${method} ${path.replaceAll(/\{(\w+)\}/g, ":$1")}`),
      ),
    );
    const isLeftOut = (route: string): boolean =>
      /sharedmemory|\/unload$|^post \S+\/(trace\/setting|logging)$/.test(route);
    const served = server.app.routes
      .filter(({ method, path }) => method !== "ALL" && path.startsWith("/v2"))
      .map(({ method, path }) => `${method.toLowerCase()} ${path}`);
    expect(served.length).toBeGreaterThan(20);
    expect(served.filter((route) => !named.has(route) && !isLeftOut(route))).toEqual([]);
  });
});
