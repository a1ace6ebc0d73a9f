/** `POST /tokenize` and `/detokenize`: the model's tokenizer for those who have none at hand. */
import { detokenizeRequestSchema, tokenizeRequestSchema } from "../../api/openai/index.ts";
import { readJsonBody } from "../http/body.ts";
import type { HttpApp } from "../http/environment.ts";
import { parseBody } from "../http/parse.ts";
import { Refusal } from "../refusal.ts";
import { resolveModel } from "../serverContext.ts";
import type { ServerContext } from "../serverContext.ts";
import { chatPromptOf } from "./chatPrompt.ts";
import { checkIds } from "./prompts.ts";
import { TokenTexts } from "./tokenTexts.ts";

/** Longer texts would hold up everybody else: the HTTP thread encodes them. */
const mostCharacters = 2_000_000;

export function mountTokens(app: HttpApp, server: ServerContext): void {
  app.post("/tokenize", async (c) => {
    const request = parseBody("tokenize", tokenizeRequestSchema, await readJsonBody(server, c));
    const { model } = resolveModel(server, request.model);
    if ((request.prompt === undefined) === (request.messages === undefined))
      throw new Refusal(400, "tokenize: expected either prompt or messages", { parameter: "prompt" });
    const text =
      request.messages === undefined
        ? (request.prompt ?? "")
        : chatPromptOf(model, {
            messages: request.messages,
            tools: request.tools,
            variables: request.chat_template_kwargs,
            addGenerationPrompt: request.add_generation_prompt,
          }).text;
    if (text.length > mostCharacters) {
      throw new Refusal(413, `tokenize: expected at most ${mostCharacters} characters, got ${text.length}`, {
        parameter: "prompt",
      });
    }
    const { tokenizer } = model;
    const ids = Array.from(tokenizer.encode(text, { specialTokens: "parse" }));
    if (request.add_special_tokens && tokenizer.bosId !== undefined) ids.unshift(tokenizer.bosId);
    const texts = new TokenTexts(tokenizer);
    return c.json({
      count: ids.length,
      max_model_len: model.engine.info.maxContext,
      tokens: ids,
      ...(request.return_token_strs ? { token_strs: ids.map((id) => texts.of(id).text) } : {}),
    });
  });
  app.post("/detokenize", async (c) => {
    const request = parseBody("detokenize", detokenizeRequestSchema, await readJsonBody(server, c));
    const { model } = resolveModel(server, request.model);
    checkIds(model, request.tokens, { parameter: "tokens" });
    return c.json({ prompt: model.tokenizer.decode(request.tokens, { specialTokens: "show" }) });
  });
}
