/** OpenAI's requests and answers as schemas: what the server parses, its OpenAPI document describes, and its tests hold answers to. */
export * from "./chat.ts";
export * from "./completions.ts";
export * from "./fields.ts";
export * from "./others.ts";
