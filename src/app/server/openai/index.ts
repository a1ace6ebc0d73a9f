/** OpenAI's routes, and those that vLLM and NeMo put beside them. */
import type { HttpApp } from "../http/environment.ts";
import type { ServerContext } from "../serverContext.ts";
import { mountChat } from "./chat.ts";
import { mountCompletions } from "./completions.ts";
import { mountEmbeddings } from "./embeddings.ts";
import { mountModels } from "./models.ts";
import { mountTokens } from "./tokens.ts";

export function mountOpenAi(app: HttpApp, server: ServerContext): void {
  mountCompletions(app, server);
  mountChat(app, server);
  mountModels(app, server);
  mountEmbeddings(app, server);
  mountTokens(app, server);
}
