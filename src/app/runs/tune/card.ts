/** README.md of an adapter: a model card with its base, licence, data and settings. */
import { basename } from "node:path";
import { publishedName, type ModelCheckpoint } from "../../../checkpoint/index.ts";
import type { TuneRecipe } from "../../../train/index.ts";

export interface CardFacts {
  recipe: TuneRecipe;
  checkpoint: ModelCheckpoint;
  numParameters: number;
  numExamples: number;
  numTokens: number;
  steps: number;
  validationLoss: number | undefined;
}

export function modelCard(facts: CardFacts): string {
  const { recipe, checkpoint, numParameters, numExamples, numTokens, steps, validationLoss } = facts;
  const { method, objective } = recipe;
  const license = checkpoint.card?.license;
  const header = [
    `base_model: ${JSON.stringify(publishedName(recipe.model))}`,
    ...(method === undefined ? [] : ["library_name: peft"]),
    ...(license === undefined ? [] : [`license: ${JSON.stringify(license)}`]),
    "pipeline_tag: text-generation",
    "tags:",
    ...["nautilus", method?.method ?? "full", objective.kind].map((tag) => `  - ${tag}`),
  ];
  const rows = [
    ["base model", publishedName(recipe.model)],
    ["method", method?.method ?? "all weights"],
    ["objective", objective.kind],
    ["trained parameters", numParameters.toLocaleString("en-US")],
    ["data", recipe.data.train.map((path) => basename(path)).join(", ")],
    ["examples", numExamples.toLocaleString("en-US")],
    ["tokens of the data", numTokens.toLocaleString("en-US")],
    ["steps", String(steps)],
    ...(validationLoss === undefined ? [] : [["validation loss", validationLoss.toFixed(4)]]),
  ];
  const table = rows.map(([name, value]) => `| ${name} | ${value} |`).join("\n");
  const settings = JSON.stringify(
    { method, objective, optim: recipe.optim, batchSize: recipe.batchSize, seed: recipe.seed },
    undefined,
    2,
  );
  return `---\n${header.join("\n")}\n---\n\n# Tuned with Nautilus\n\n| | |\n| --- | --- |\n${table}\n\n\`\`\`json\n${settings}\n\`\`\`\n`;
}
