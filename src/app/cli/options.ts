/** Options that several verbs share, and the parsing of their numbers. */
import { InvalidArgumentError, Option } from "commander";
import type { QuantisedFormat } from "../../device/index.ts";
import type { CacheFormat } from "../../models/index.ts";

/** `--quantise`: the blocks' matrices in 8 or 4 bits. */
export function quantiseOption(): Option {
  const text = "hold the blocks' matrices in 8 or 4 bits; with fp8 their inputs too";
  const formats: readonly QuantisedFormat[] = ["int8", "nf4", "int4", "fp8"];
  return new Option("--quantise <format>", text).choices(formats);
}

/** `--kv-cache`: what the cache holds keys and values as. */
export function kvCacheOption(): Option {
  const text = "keys and values in the model's floats, or in 8 bits: half of bf16";
  const formats: readonly CacheFormat[] = ["auto", "fp8"];
  return new Option("--kv-cache <format>", text).choices(formats).default("auto");
}

/** `--precision`: the dtype of the weights on the device. */
export function precisionOption(): Option {
  return new Option(
    "--precision <dtype>",
    "floats of the weights (default: those of the checkpoint)",
  ).choices(["f32", "bf16"]);
}

/** `--no-mmap`: weights into memory of the process's own. */
export function mmapOption(): Option {
  return new Option("--no-mmap", "on the CPU: read the weights into memory instead of mapping their files");
}

/** `--adapter`: what a tuning made, put on the model. */
export function adapterOption(): Option {
  return new Option("--adapter <folder>", "a tuned adapter to put on: its folder or a tuning run");
}

/** Parses a whole number of at least `minimum`. */
export function wholeNumber(minimum: number) {
  return (text: string): number => {
    const value = Number(text);
    if (!Number.isSafeInteger(value) || value < minimum)
      throw new InvalidArgumentError(`expected a whole number of at least ${minimum}.`);
    return value;
  };
}

/** Parses a finite number of at least `minimum`. */
export function realNumber(minimum = -Infinity) {
  return (text: string): number => {
    const value = Number(text);
    if (text.trim() === "" || !Number.isFinite(value) || value < minimum) {
      throw new InvalidArgumentError(
        minimum === -Infinity ? "expected a number." : `expected a number of at least ${minimum}.`,
      );
    }
    return value;
  };
}

const byteUnits: Readonly<Record<string, number>> = {
  "": 1,
  B: 1,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  KIB: 2 ** 10,
  MIB: 2 ** 20,
  GIB: 2 ** 30,
  TIB: 2 ** 40,
};

/** Parses "5GB", "500 MiB" or a plain number of bytes. */
export function byteCount(text: string): number {
  const [, digits, unit] = /^\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*$/i.exec(text) ?? [];
  const factor = unit === undefined ? undefined : byteUnits[unit.toUpperCase()];
  const bytes = Math.floor(Number(digits) * (factor ?? NaN));
  if (!Number.isSafeInteger(bytes) || bytes <= 0)
    throw new InvalidArgumentError("expected a size such as 5GB or 500MiB.");
  return bytes;
}

/** For options that may be given several times. */
export function collect(value: string, previous: readonly string[] | undefined): string[] {
  return [...(previous ?? []), value];
}

export const deviceOption = (): Option =>
  new Option("--device <kind>", "where to compute")
    .choices(["auto", "cpu", "cuda", "reference"])
    .default("auto");

export const threadsOption = (): Option =>
  new Option("--threads <count>", "CPU threads (default: the cores this process may use)").argParser(
    wholeNumber(1),
  );

export const jsonOption = (): Option => new Option("--json", "print JSON for programs");
