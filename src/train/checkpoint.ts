/**
 * Checkpoints of a run: `checkpoints/step-N/` with the model as a Hugging Face folder (`model/`), the optimizer's states, and the run's state.
 *
 * A checkpoint is written beside its final name, flushed, summed, and renamed: one that has its name is whole. Its sums are verified
 * before it is loaded. Older ones than the last `keep` are removed after the new one stands.
 */
import { existsSync, readdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import {
  CheckpointError,
  invariant,
  makeFolder,
  readJson,
  withFileErrors,
  writeText,
} from "../base/index.ts";
import { openSafetensors, verifyChecksums, writeChecksums, writeSafetensors } from "../checkpoint/index.ts";
import type { Decoder } from "../models/index.ts";
import { loadModelWeights, saveModelFolder } from "../models/index.ts";
import type { Context, ParameterStore, Tensor } from "../tensor/index.ts";
import type { RunState } from "./loop.ts";
import type { AdamW } from "./optimizer.ts";

export interface CheckpointContents {
  decoder: Decoder;
  optimizer: AdamW;
  /** What is trained beside a frozen decoder: then its parameters are saved in the model's place, and its files by `saveFiles`. */
  adapter?: { parameters: ParameterStore; saveFiles(folder: string): void } | undefined;
}

const adapterName = "adapter.safetensors";

export interface SaveOptions {
  /** Files copied into the model folder: the tokenizer. By name. */
  extraFiles?: Readonly<Record<string, string>>;
  keep: number;
  /** The resolved recipe, kept beside the state. */
  recipe: unknown;
}

const component = "checkpoint";
const formatVersion = 1;
const stepFolder = /^step-(\d+)$/;

interface Found {
  step: number;
  path: string;
}

/** The run's checkpoints, oldest first. */
export function listCheckpoints(runFolder: string): Found[] {
  const folder = join(runFolder, "checkpoints");
  if (!existsSync(folder)) return [];
  const names = withFileErrors(component, "a readable folder", folder, () => readdirSync(folder));
  return names
    .flatMap((name) => {
      const step = stepFolder.exec(name)?.[1];
      return step === undefined ? [] : [{ step: Number(step), path: join(folder, name) }];
    })
    .sort((a, b) => a.step - b.step);
}

/** Saves a checkpoint and gives its folder. Throws FileError; what stood before still stands then. */
export function saveCheckpoint(
  runFolder: string,
  { decoder, optimizer, adapter }: CheckpointContents,
  { state, ...options }: SaveOptions & { state: RunState },
): string {
  const folder = join(runFolder, "checkpoints");
  const path = join(folder, `step-${String(state.step).padStart(8, "0")}`);
  const temporary = `${path}.part`;
  removeFolder(temporary);
  try {
    makeFolder(component, temporary);
    if (adapter === undefined) saveModelFolder(decoder, join(temporary, "model"), options.extraFiles ?? {});
    else {
      writeTensors(parametersOf(adapter.parameters), join(temporary, adapterName));
      adapter.saveFiles(join(temporary, "adapter"));
    }
    writeTensors(optimizer.tensors(), join(temporary, "optimizer.safetensors"));
    writeText(
      component,
      join(temporary, "state.json"),
      `${JSON.stringify({ formatVersion, ...state }, undefined, 1)}\n`,
    );
    writeText(component, join(temporary, "recipe.json"), `${JSON.stringify(options.recipe, undefined, 1)}\n`);
    writeChecksums(temporary);
    removeFolder(path);
    withFileErrors(component, "a writable folder", path, () => renameSync(temporary, path));
  } catch (error) {
    removeFolder(temporary);
    throw error;
  }
  for (const old of listCheckpoints(runFolder).slice(0, -options.keep)) removeFolder(old.path);
  return path;
}

function removeFolder(path: string): void {
  withFileErrors(component, "a folder that can be removed", path, () =>
    rmSync(path, { recursive: true, force: true }),
  );
}

/** Views of an adapter's parameters, that the caller disposes. */
function parametersOf(store: ParameterStore): { name: string; tensor: Tensor }[] {
  return [...store].map((parameter) => ({ name: parameter.name, tensor: parameter.alias() }));
}

function writeTensors(states: readonly { name: string; tensor: Tensor }[], path: string): void {
  const headers = states.map(({ name, tensor }) => ({
    name,
    dtype: storedDtype(tensor.dtype),
    shape: tensor.shape,
  }));
  const byName = new Map(states.map(({ name, tensor }) => [name, tensor]));
  try {
    writeSafetensors(path, headers, {
      *dataOf(name) {
        const tensor = byName.get(name);
        if (tensor !== undefined) yield tensor.toBytes();
      },
    });
  } finally {
    for (const { tensor } of states) tensor.dispose();
  }
}

function storedDtype(dtype: string): "f32" | "bf16" {
  invariant(dtype === "f32" || dtype === "bf16", `an optimizer state in f32 or bf16, not ${dtype}`);
  return dtype;
}

/** Fills the model and the optimizer from a checkpoint and gives its state. Throws CheckpointError. */
export function loadCheckpoint(
  context: Context,
  path: string,
  { decoder, optimizer, adapter }: CheckpointContents,
): RunState {
  verifyChecksums(path);
  if (adapter === undefined) loadModelWeights(context, decoder, join(path, "model"));
  else readTensors(path, adapterName, parametersOf(adapter.parameters));
  readTensors(path, "optimizer.safetensors", optimizer.tensors());
  return readState(join(path, "state.json"));
}

function readTensors(path: string, file: string, states: readonly { name: string; tensor: Tensor }[]): void {
  using source = openSafetensors(join(path, file));
  try {
    for (const { name, tensor } of states) {
      checkTensor(path, tensor, { name, info: source.info(name) });
      tensor.setBytes(source.read(name));
    }
  } finally {
    for (const { tensor } of states) tensor.dispose();
  }
}

function checkTensor(
  path: string,
  tensor: Tensor,
  { name, info }: { name: string; info: { dtype: string; shape: readonly number[] } },
): void {
  const expected = `${tensor.dtype} (${tensor.shape.join(", ")})`;
  const got = `${info.dtype} (${info.shape.join(", ")})`;
  if (expected !== got) {
    throw new CheckpointError(component, `expected ${name} as ${expected} in ${path}, got ${got}`, {
      hint: "the checkpoint is of another model or optimizer; start a new run folder",
    });
  }
}

const stateFields = [
  "step",
  "tokensSeen",
  "samplesConsumed",
  "meanNorm",
  "skippedSteps",
  "consecutiveSkips",
] as const;

function readState(path: string): RunState {
  const json = readJson(component, path);
  if (typeof json !== "object" || json === null)
    throw new CheckpointError(component, `expected a run state in ${path}, got ${typeof json}`);
  const fields = new Map<string, unknown>(Object.entries(json));
  if (fields.get("formatVersion") !== formatVersion) {
    throw new CheckpointError(
      component,
      `expected format version ${formatVersion} in ${path}, got ${String(fields.get("formatVersion"))}`,
    );
  }
  const number = (name: string): number => {
    const value = fields.get(name);
    if (typeof value !== "number")
      throw new CheckpointError(component, `expected a number '${name}' in ${path}, got ${typeof value}`);
    return value;
  };
  const [step, tokensSeen, samplesConsumed, meanNorm, skippedSteps, consecutiveSkips] =
    stateFields.map(number);
  return {
    step,
    tokensSeen,
    samplesConsumed,
    meanNorm,
    skippedSteps,
    consecutiveSkips,
    recentNorms: readNorms(path, fields.get("recentNorms")),
  };
}

function readNorms(path: string, value: unknown): RunState["recentNorms"] {
  const isNorm = (entry: unknown): entry is RunState["recentNorms"][number] =>
    typeof entry === "object" &&
    entry !== null &&
    "step" in entry &&
    "norm" in entry &&
    typeof entry.step === "number" &&
    typeof entry.norm === "number";
  if (Array.isArray(value) && value.every(isNorm)) return value;
  throw new CheckpointError(
    component,
    `expected norms of recent steps in ${path}, got ${JSON.stringify(value)}`,
  );
}
