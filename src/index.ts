/** Nautilus: LLMs from raw text to a served model, in TypeScript. The folders are the subpaths: `nautilus-llm/train`, … */
export { NautilusError } from "./base/index.ts";
export { openDevice } from "./device/index.ts";
export { Context } from "./tensor/index.ts";
export { Decoder, loadModelFolder } from "./models/index.ts";
export { defineRecipe } from "./train/index.ts";
export type { Recipe, RecipeInput } from "./train/index.ts";
export { NemoQuery } from "./app/client/index.ts";
export type { NemoQueryOptions, QueryLlmOptions, QueryStreamOptions } from "./app/client/index.ts";
export { load, LoadedModel } from "./app/api/load.ts";
export type { GeneratedText, GenerateOptions, LoadOptions, ModelPrompt } from "./app/api/load.ts";
