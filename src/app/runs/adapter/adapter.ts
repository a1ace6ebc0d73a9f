/** Adapters on disk: finding, describing, merging, exporting. */
import { createHash } from "node:crypto";
import { existsSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { ConfigError, makeFolder, note, numElements, readText, writeText } from "../../../base/index.ts";
import {
  modelCardBody,
  openCheckpoint,
  parseModelCard,
  publishedName,
  writeModelCard,
} from "../../../checkpoint/index.ts";
import type { ModelCard, ModelCardChanges } from "../../../checkpoint/index.ts";
import { openDevice } from "../../../device/index.ts";
import {
  loadAdapter,
  mergeAdapter,
  modelFamily,
  readAdapterFolder,
  saveAdapter,
  saveModelFolder,
} from "../../../models/index.ts";
import type { Adapter } from "../../../models/index.ts";
import { Context } from "../../../tensor/index.ts";
import { labelled } from "../../terminal/columns.ts";
import { tensorTable } from "../inspect/tensorTable.ts";
import { findModel, openModel } from "../openModel.ts";
import { findAdapter } from "./find.ts";
import { expectNothingNeededIn, removeOutputFolder } from "../replaceFolder.ts";
import type { OpenModel } from "../openModel.ts";

export interface AdapterCliOptions {
  output: string;
  model?: string;
  force?: boolean;
  device: "auto" | "cpu" | "cuda" | "reference";
  threads?: number;
}

/** Its place and its weights' digest: a run that is tuned anew is another adapter under the same path. Throws CheckpointError. */
export function adapterIdentity(path: string): string {
  using source = readAdapterFolder(findAdapter(path)).openWeights();
  const hash = createHash("sha256");
  for (const name of [...source.names()].toSorted()) hash.update(name).update(source.read(name));
  return `${path} (sha256 ${hash.digest("hex").slice(0, 16)})`;
}

/** Puts the adapter at `path` on an open model; the caller disposes it before the model. */
export function attachAdapter(context: Context, { decoder }: OpenModel, path: string): Adapter {
  const adapter = loadAdapter(context, decoder, {
    family: modelFamily(decoder.config),
    folder: findAdapter(path),
  });
  decoder.attach(adapter);
  return adapter;
}

export function inspectAdapter(path: string, { json }: { json?: boolean }): void {
  const folder = findAdapter(path);
  const { config, baseModel, openWeights } = readAdapterFolder(folder);
  using source = openWeights();
  const tensors = [...source.names()].map((name) => ({ name, ...source.info(name) }));
  const numParameters = tensors.reduce((total, { shape }) => total + numElements(shape), 0);
  if (json === true) {
    process.stdout.write(
      `${JSON.stringify({ folder, baseModel, config, numParameters, tensors }, undefined, 2)}\n`,
    );
    return;
  }
  process.stdout.write(
    `${config.method} adapter in ${folder}\nbase        ${baseModel ?? "not named"}\nparameters  ${numParameters.toLocaleString("en-US")}\n` +
      settingsText(config),
  );
  process.stdout.write(
    `\n${tensorTable(
      tensors.map(({ name, byteLength, ...tensor }) => ({
        ...tensor,
        name: name.replace(/^base_model\.model\./, ""),
        bytes: byteLength,
      })),
      false,
    ).join("\n")}\n`,
  );
}

/** The fields that say something, one a line; modules that are alike in every layer once. */
function settingsText(config: object): string {
  return Object.entries(config)
    .filter(([key]) => key !== "method")
    .map(([key, value]: [string, unknown]): [string, string] => [key, settingText(value)])
    .filter(([, text]) => text !== "")
    .map(([key, text]) => labelled(key.padEnd(12), text, 80))
    .join("");
}

function settingText(value: unknown): string {
  if (Array.isArray(value))
    return [...new Set(value.map((one) => String(one).replace(/\.\d+\./, ".*.")))].join(" ");
  if (typeof value !== "object" || value === null) return String(value);
  return Object.entries(value)
    .map(([key, one]) => `${key}=${String(one)}`)
    .join(" ");
}

export async function mergeIntoModel(path: string, options: AdapterCliOptions): Promise<void> {
  await withModelAndAdapter(path, options, (context, { model, adapter, base, licence }) => {
    const { decoder, folder } = model;
    mergeAdapter(context, decoder, adapter);
    decoder.attach(undefined);
    const names = [
      "tokenizer.json",
      "tokenizer_config.json",
      "tokenizer.model",
      "special_tokens_map.json",
      "chat_template.jinja",
    ];
    const files = names.filter((name) => existsSync(join(folder, name)));
    saveModelFolder(
      decoder,
      options.output,
      Object.fromEntries(files.map((name) => [name, join(folder, name)])),
    );
    writeCard(options.output, licence, {
      base,
      title: "A merged model",
      description: `The weights of ${publishedName(base)} with an adapter in them, merged by Nautilus; the base's license and terms of use apply.\n\n${aboutAdapter(path)}`,
    });
    note(`the model with the adapter in its weights is in ${options.output}`);
  });
}

export async function exportAdapter(path: string, options: AdapterCliOptions): Promise<void> {
  await withModelAndAdapter(path, options, (context, { model, adapter, base, licence }) => {
    const { decoder } = model;
    const family = modelFamily(decoder.config);
    saveAdapter(context, adapter, { decoder, family, folder: options.output, baseModel: base });
    const card = readCard(findAdapter(path));
    writeCard(options.output, card ?? licence, {
      base,
      library: "peft",
      title: "An adapter",
      description: `Of ${publishedName(base)}, whose license and terms of use apply.\n\n${aboutAdapter(path)}`,
    });
    note(`the adapter is in ${options.output}`);
  });
}

interface OpenAdapter {
  model: OpenModel;
  adapter: Adapter;
  /** The base as the adapter or --model names it. */
  base: string;
  /** What the base's card says of licences, without its text. */
  licence: ModelCard | undefined;
}

async function withModelAndAdapter(
  path: string,
  { output, model: named, force, device: kind, threads }: AdapterCliOptions,
  body: (context: Context, open: OpenAdapter) => void,
): Promise<void> {
  if (existsSync(output) && readdirSync(output).length > 0) {
    if (force !== true)
      throw new ConfigError("adapter", `expected an empty folder at ${output}, got one with files`, {
        hint: "name another, or replace it with --force",
      });
  }
  const folder = findAdapter(path);
  const { baseModel } = readAdapterFolder(folder);
  const base = named ?? baseModel;
  if (base === undefined)
    throw new ConfigError("adapter", "expected --model, got an adapter that names no base");
  if (force === true) expectNothingNeededIn("adapter", output, { base: findModel(base), adapter: folder });
  using device = await openDevice({ kind, threads });
  const context = new Context(device);
  using model = await openModel(context, base);
  using adapter = attachAdapter(context, model, path);
  const licence = await licenceOf(base);
  if (force === true) removeOutputFolder("adapter", output);
  const isNew = !existsSync(output);
  makeFolder("adapter", output);
  try {
    body(context, { model, adapter, base, licence });
  } catch (error) {
    if (isNew) rmSync(output, { recursive: true, force: true });
    throw error;
  }
}

async function licenceOf(base: string): Promise<ModelCard | undefined> {
  using checkpoint = await openCheckpoint(findModel(base));
  return checkpoint.card && { ...checkpoint.card, baseModels: [], text: undefined };
}

const cardName = "README.md";

function readCard(folder: string): ModelCard | undefined {
  const path = join(folder, cardName);
  return existsSync(path) ? parseModelCard(readText("adapter", path)) : undefined;
}

/** How the adapter came about, as its own card tells it. */
function aboutAdapter(path: string): string {
  const folder = findAdapter(path);
  const text = readCard(folder)?.text;
  if (text !== undefined) return modelCardBody(text).replaceAll(/^#/gm, "##").trim();
  const { config } = readAdapterFolder(folder);
  return `## ${config.method}\n\n\`\`\`json\n${JSON.stringify(config, undefined, 2)}\n\`\`\``;
}

function writeCard(
  folder: string,
  card: ModelCard | undefined,
  { base, ...facts }: Pick<ModelCardChanges, "title" | "description" | "library"> & { base: string },
): void {
  const text = writeModelCard(card, { license: undefined, baseModel: publishedName(base), ...facts });
  writeText("adapter", join(folder, cardName), text);
}
