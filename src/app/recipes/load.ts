/** Recipes from files: TypeScript or JavaScript modules, YAML, JSON; with `--set` assignments applied before the check. */
import { existsSync } from "node:fs";
import { extname, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { parse as parseYaml } from "yaml";
import { ConfigError, messageOf, readJson, readText } from "../../base/index.ts";
import { parseRecipe, withAssignment } from "../../train/index.ts";
import type { Recipe } from "../../train/index.ts";

/** Reads and checks a recipe. Throws ConfigError, FileError. */
export async function loadRecipe(path: string, assignments: readonly string[] = []): Promise<Recipe> {
  return parseRecipe(await loadRecipeValue(path, assignments));
}

/** A recipe of any kind before its check; without a path, the assignments alone. Throws ConfigError, FileError. */
export async function loadRecipeValue(
  path: string | undefined,
  assignments: readonly string[] = [],
): Promise<unknown> {
  const written = path === undefined ? {} : await readRecipe(path);
  return assignments.reduce((recipe: unknown, assignment) => withAssignment(recipe, assignment), written);
}

async function readRecipe(path: string): Promise<unknown> {
  const component = "recipe";
  if (!existsSync(path)) {
    throw new ConfigError(component, `expected a recipe at ${path}, got nothing there`, {
      hint: "give the path of a .ts, .js, .yaml or .json file; examples/ has some",
    });
  }
  switch (extname(path)) {
    case ".json":
      return readJson(component, path);
    case ".yaml":
    case ".yml":
      return attempt(path, () => parseYaml(readText(component, path)) as unknown);
    case ".ts":
    case ".mts":
    case ".js":
    case ".mjs": {
      const module = await attempt(
        path,
        () => import(pathToFileURL(resolve(path)).href) as Promise<Record<string, unknown>>,
      );
      if (!("default" in module)) {
        throw new ConfigError(component, `expected a default export in ${path}, got none`, {
          hint: "export default defineRecipe({ … })",
        });
      }
      return module["default"];
    }
    default:
      throw new ConfigError(component, `expected a .ts, .js, .yaml or .json file, got ${path}`);
  }
}

async function attempt<Result>(path: string, body: () => Result | Promise<Result>): Promise<Result> {
  try {
    return await body();
  } catch (error) {
    throw new ConfigError("recipe", `expected a readable recipe in ${path}, got ${messageOf(error)}`, {
      cause: error,
    });
  }
}
