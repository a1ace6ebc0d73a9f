/** What a tuning run needs before any weight is read: recipe, tokenizer, and data that is checked to the last line. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { ConfigError, DataError, formatCount, note, countOf } from "../../../base/index.ts";
import { openCheckpoint } from "../../../checkpoint/index.ts";
import type { ModelCheckpoint } from "../../../checkpoint/index.ts";
import { readTuningData, splitTuningData } from "../../../data/index.ts";
import type { EncodeTextOptions, TuningData, TuningExample } from "../../../data/index.ts";
import { parseModelConfig } from "../../../models/index.ts";
import type { DecoderConfig } from "../../../models/index.ts";
import { loadChatTemplates, loadTokenizer } from "../../../text/index.ts";
import type { Tokenizer } from "../../../text/index.ts";
import type { TuneRecipe } from "../../../train/index.ts";
import { findModel } from "../openModel.ts";
import { tokenizerFolder } from "../tokenizerFolder.ts";

const usualLength = 2048;

export interface PreparedTuning extends Disposable {
  recipe: TuneRecipe;
  checkpoint: ModelCheckpoint;
  /** With the tokenizer's files. */
  folder: string;
  config: DecoderConfig;
  tokenizer: Tokenizer;
  maxLength: number;
  numVirtualTokens: number;
  data: TuningData;
  train: TuningExample[];
  validation: TuningExample[];
}

/** Opens the base's configuration and tokenizer and encodes the data. Throws CheckpointError, DataError, ConfigError. */
export async function prepareTuning(recipe: TuneRecipe): Promise<PreparedTuning> {
  const checkpoint = await openCheckpoint(findModel(recipe.model));
  const files = tokenizerFolder(checkpoint, recipe.tokenizer);
  const dispose = (): void => {
    checkpoint[Symbol.dispose]();
    files[Symbol.dispose]();
  };
  try {
    if (checkpoint.config === undefined)
      throw new ConfigError(
        "tune",
        `expected a model with its configuration at ${recipe.model}, got weights alone`,
      );
    const config = parseModelConfig(checkpoint.config);
    const tokenizer = loadTokenizer(files.tokenizerPath);
    const { method } = recipe;
    const numVirtualTokens = method !== undefined && "numTokens" in method ? method.numTokens : 0;
    const room = config.maxPositions - numVirtualTokens;
    const maxLength = recipe.maxLength ?? Math.min(usualLength, room);
    if (maxLength > room) {
      throw new ConfigError("tune", `maxLength: expected at most ${room}, got ${maxLength}`, {
        hint: `the model takes ${config.maxPositions} tokens`,
      });
    }
    const options = encodeOptions(recipe, { tokenizer, folder: files.folder, maxLength });
    const data = readTuningData(recipe.data.train, options);
    expectKind(recipe, data);
    const validationFiles = recipe.data.validation;
    const split =
      validationFiles.length > 0
        ? { train: data.examples, validation: readTuningData(validationFiles, options).examples }
        : splitTuningData(data.examples, { share: recipe.data.validationShare, seed: recipe.seed });
    return {
      recipe,
      checkpoint,
      folder: files.folder,
      config,
      tokenizer,
      maxLength,
      numVirtualTokens,
      data,
      ...split,
      [Symbol.dispose]: dispose,
    };
  } catch (error) {
    dispose();
    throw error;
  }
}

function encodeOptions(
  { data }: TuneRecipe,
  { tokenizer, folder, maxLength }: { tokenizer: Tokenizer; folder: string; maxLength: number },
): EncodeTextOptions {
  const templates = existsSync(join(folder, "tokenizer_config.json")) ? loadChatTemplates(folder) : undefined;
  const hasTemplate = templates !== undefined && templates.names.length > 0;
  return {
    tokenizer,
    promptTemplate: data.promptTemplate,
    chat: data.chat ?? (hasTemplate ? "model" : "nemotron"),
    chatTemplates: hasTemplate ? templates : undefined,
    addBos: data.addBos,
    addEos: data.addEos,
    answerOnly: data.answerOnly,
    maxLength,
    cut: data.cut,
  };
}

function expectKind({ objective, data: { train } }: TuneRecipe, { kind }: TuningData): void {
  const wanted = objective.kind === "sft" ? "text" : objective.kind === "kto" ? "unpaired" : "preference";
  if (kind === wanted) return;
  const forms = {
    text: "texts with answers",
    preference: "prompt, chosen and rejected",
    unpaired: "prompt, completion and label",
  };
  throw new DataError(
    "tune",
    `expected ${forms[wanted]} for ${objective.kind}, got ${forms[kind]} in ${train.join(", ")}`,
  );
}

/** What the data is like, and what was cut away of it. */
export function noteStatistics({ data, train, validation }: PreparedTuning): void {
  const { statistics } = data;
  const { numTokens, numTrained, meanLength, longest, numCutAnswers, numCutPrompts, numDropped } = statistics;
  const share = Math.round((100 * numTrained) / numTokens);
  note(
    `data       ${countOf(train.length, "example")}, ${validation.length} for validation; ${formatCount(numTokens)} tokens, ${share} % of them learnt; ` +
      `${countOf(Math.round(meanLength), "token")} a text, the longest ${longest}`,
  );
  if (numCutAnswers > 0)
    note(`           ${countOf(numCutAnswers, "example")} cut in the answer: raise maxLength`);
  if (numCutPrompts > 0) note(`           ${countOf(numCutPrompts, "example")} cut in the prompt`);
  if (numDropped > 0)
    note(`           ${countOf(numDropped, "example")} left out: nothing there would be learnt`);
}
