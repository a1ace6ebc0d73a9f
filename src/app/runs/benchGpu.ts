/**
 * The speed of the Nemotron-3-8B shape on one GPU: each figure with its physical limit, the share of it, and PyTorch's figure from the same
 * run. Sizes and counting are the peer's: a multiply-add is two operations, causal attention is counted once.
 */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { ConfigError } from "../../base/index.ts";
import { openDevice } from "../../device/index.ts";
import type { Device } from "../../device/index.ts";
import { checkDecoderConfig, nemotronPreset } from "../../models/index.ts";
import type { DecoderConfig } from "../../models/index.ts";
import { Context } from "../../tensor/index.ts";
import type { RecomputePolicy } from "../../tensor/index.ts";
import { measureAttention, measureDecode, measureMatmul, measurePrefill } from "./benchModel.ts";
import type { BenchFigure } from "./benchModel.ts";
import { measureTraining, planTraining } from "./benchTraining.ts";

/** The verb's options. */
export interface BenchGpuOptions {
  only?: string[];
  layers: number;
  microBatch?: number;
  /** MiB */
  lossChunk: number;
  recompute?: RecomputePolicy;
  master?: boolean;
  peer?: string;
  python: string;
  json?: boolean;
}

const names = ["matmul", "attention", "train", "lora", "prefill", "decode"] as const;
type Name = (typeof names)[number];

/** What the peer calls each figure. */
const peerModes: Readonly<Record<Name, string>> = {
  matmul: "gemm",
  attention: "sdpa",
  train: "train",
  lora: "lora",
  prefill: "prefill",
  decode: "decode",
};

function chosenNames(only: readonly string[] | undefined): readonly Name[] {
  if (only === undefined) return names;
  return only.map((name) => {
    const found = names.find((known) => known === name);
    if (found === undefined)
      throw new ConfigError("bench", `--only: expected one of ${names.join(", ")}, got '${name}'`);
    return found;
  });
}

export async function benchGpuCommand(options: BenchGpuOptions): Promise<void> {
  const chosen = chosenNames(options.only);
  if (options.peer !== undefined && !existsSync(options.peer)) {
    throw new ConfigError("bench", `--peer: expected a Python script at ${options.peer}, got nothing there`);
  }
  const config = checkDecoderConfig({ ...nemotronPreset("nemotron-3-8b"), numLayers: options.layers });
  const figures: BenchFigure[] = [];
  for (const name of chosen) {
    figures.push(...(await measure(name, config, options)));
    // The peer needs the card to itself.
    if (options.peer !== undefined) addPeer(figures, name, options);
    if (options.json !== true)
      for (const figure of figures.splice(0)) process.stdout.write(`${formatFigure(figure)}\n`);
  }
  if (options.json === true) process.stdout.write(`${JSON.stringify(figures, undefined, 2)}\n`);
}

async function measure(name: Name, config: DecoderConfig, options: BenchGpuOptions): Promise<BenchFigure[]> {
  using device: Device = await openDevice({ kind: "cuda" });
  const context = new Context(device);
  switch (name) {
    case "matmul":
      return measureMatmul(context);
    case "attention":
      return measureAttention(context);
    case "train":
    case "lora":
      return measureTraining(
        context,
        planTraining(device, {
          config,
          isFrozen: name === "lora",
          hasMaster: name === "train" && options.master === true,
          chunkBytes: options.lossChunk * 2 ** 20,
          numSequences: options.microBatch,
          recompute: options.recompute,
        }),
      );
    case "prefill":
      return measurePrefill(context, config);
    case "decode":
      return [1, 16, 64].flatMap((batch) => measureDecode(context, config, batch));
  }
}

/** One JSON line of the peer. */
type PeerLine = Readonly<Record<string, unknown>>;

function runPeer(mode: string, { peer, python }: BenchGpuOptions): PeerLine[] {
  const { stdout } = spawnSync(python, [peer ?? "", mode], {
    encoding: "utf8",
    maxBuffer: 1 << 24,
    stdio: ["ignore", "pipe", "ignore"],
  });
  return stdout.split("\n").flatMap((line) => {
    try {
      const value: unknown = JSON.parse(line);
      return typeof value === "object" && value !== null ? [Object.fromEntries(Object.entries(value))] : [];
    } catch {
      return [];
    }
  });
}

function addPeer(figures: BenchFigure[], name: Name, options: BenchGpuOptions): void {
  const lines = runPeer(peerModes[name], options);
  for (const figure of figures) {
    if (figure.peer !== undefined || !figure.name.startsWith(name)) continue;
    const values = lines.flatMap((line) => (figure.isPeerLine(line) ? [line[figure.peerField]] : []));
    const numbers = values.filter((value) => typeof value === "number");
    if (numbers.length > 0) figure.peer = Math.max(...numbers);
  }
}

function formatFigure({ name, value, unit, limit, peer, details }: BenchFigure): string {
  const share =
    limit === undefined ? "" : `  ${((100 * value) / limit).toFixed(0)} % of ${limit.toPrecision(4)}`;
  const beside = peer === undefined ? "" : `  PyTorch ${peer.toPrecision(4)} (${(value / peer).toFixed(2)}x)`;
  return `${name.padEnd(26)} ${value.toPrecision(4).padStart(9)} ${unit.padEnd(8)}${share}${beside}${details === undefined ? "" : `  ${details}`}`;
}
