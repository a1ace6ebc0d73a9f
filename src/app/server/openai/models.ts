/** `GET /v1/models`: each model, and each of its adapters as "model:adapter". */
import type { ModelObject } from "../../api/openai/index.ts";
import type { HttpApp } from "../http/environment.ts";
import { resolveModel } from "../serverContext.ts";
import type { ServerContext } from "../serverContext.ts";
import type { ServedModel } from "../servedModel.ts";

function objectOf(id: string, { created, engine }: ServedModel): ModelObject {
  return { id, object: "model", created, owned_by: "nautilus", max_model_len: engine.info.maxContext };
}

export function mountModels(app: HttpApp, server: ServerContext): void {
  for (const path of ["/v1/models", "/v1/models/"]) {
    app.get(path, (c) =>
      c.json({
        object: "list",
        data: server.models
          .list()
          .flatMap((model) => [
            objectOf(model.name, model),
            ...model.engine.info.adapters.map((adapter) => objectOf(`${model.name}:${adapter}`, model)),
          ]),
      }),
    );
  }
  // Names may hold slashes, as those of model hubs do.
  app.get("/v1/models/:name{.+}", (c) => {
    const name = c.req.param("name").replace(/\/$/, "");
    return c.json(objectOf(name, resolveModel(server, name).model));
  });
}
