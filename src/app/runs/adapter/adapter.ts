/** Adapters on disk: finding, describing, merging, exporting. */
import { createHash } from "node:crypto";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { CheckpointError, ConfigError, makeFolder, note, numElements } from "../../../base/index.ts";
import { openDevice } from "../../../device/index.ts";
import {
  isAdapterFolder,
  loadAdapter,
  mergeAdapter,
  modelFamily,
  readAdapterFolder,
  saveAdapter,
  saveModelFolder,
} from "../../../models/index.ts";
import type { Adapter } from "../../../models/index.ts";
import { Context } from "../../../tensor/index.ts";
import { listCheckpoints } from "../../../train/index.ts";
import { labelled } from "../../terminal/columns.ts";
import { tensorTable } from "../inspect/inspect.ts";
import { openModel } from "../openModel.ts";
import { removeOutputFolder } from "../replaceFolder.ts";
import type { OpenModel } from "../openModel.ts";

export interface AdapterCliOptions {
  output: string;
  model?: string;
  force?: boolean;
  device: "auto" | "cpu" | "cuda" | "reference";
  threads?: number;
}

/** The adapter behind a path: a folder, a file of NeMo, or the finished or newest one of a tuning run. Throws CheckpointError. */
export function findAdapter(path: string): string {
  const newest = listCheckpoints(path).at(-1)?.path;
  const candidates = [
    path,
    join(path, "adapter"),
    ...(newest === undefined ? [] : [join(newest, "adapter")]),
  ];
  const found = candidates.find((folder) => isAdapterFolder(folder));
  if (found !== undefined) return found;
  throw new CheckpointError(
    "adapter",
    `expected an adapter or a tuning run at ${path}, got ${existsSync(path) ? "neither" : "nothing there"}`,
    { hint: "train one with 'nautilus tune'" },
  );
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
  await withModelAndAdapter(path, options, (context, model, adapter) => {
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
    note(`the model with the adapter in its weights is in ${options.output}`);
  });
}

export async function exportAdapter(path: string, options: AdapterCliOptions): Promise<void> {
  await withModelAndAdapter(path, options, (context, { decoder, path: baseModel }, adapter) => {
    saveAdapter(context, adapter, {
      decoder,
      family: modelFamily(decoder.config),
      folder: options.output,
      baseModel: options.model ?? baseModel,
    });
    note(`the adapter is in ${options.output}`);
  });
}

async function withModelAndAdapter(
  path: string,
  { output, model: named, force, device: kind, threads }: AdapterCliOptions,
  body: (context: Context, model: OpenModel, adapter: Adapter) => void,
): Promise<void> {
  if (existsSync(output) && readdirSync(output).length > 0) {
    if (force !== true)
      throw new ConfigError("adapter", `expected an empty folder at ${output}, got one with files`, {
        hint: "name another, or replace it with --force",
      });
  }
  const { baseModel } = readAdapterFolder(findAdapter(path));
  const base = named ?? baseModel;
  if (base === undefined)
    throw new ConfigError("adapter", "expected --model, got an adapter that names no base");
  using device = await openDevice({ kind, threads });
  const context = new Context(device);
  using model = await openModel(context, base);
  using adapter = attachAdapter(context, model, path);
  if (force === true) removeOutputFolder("adapter", output);
  makeFolder("adapter", output);
  body(context, model, adapter);
}
