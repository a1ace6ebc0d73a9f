/** The training figures of `nautilus bench gpu`: a whole step, and one through frozen weights, as large as memory allows. */
import { formatBytes, invariant } from "../../base/index.ts";
import type { Device } from "../../device/index.ts";
import { countMatmulParameters, Decoder, operationsPerToken, trainingMemory } from "../../models/index.ts";
import type { DecoderConfig } from "../../models/index.ts";
import { Tape } from "../../tensor/index.ts";
import type { Context, RecomputePolicy, Tensor } from "../../tensor/index.ts";
import { AdamW, TrainingStep } from "../../train/index.ts";
import { matmulTflops, time } from "./benchModel.ts";
import type { BenchFigure } from "./benchModel.ts";

export interface TrainingMeasurement {
  config: DecoderConfig;
  numSequences: number;
  /** Frozen weights: forward and backward to the input alone, as LoRA has it without its own small matrices. */
  isFrozen: boolean;
  /** An f32 master copy of the weights, 12 bytes a parameter in all, instead of stochastic rounding, 8 bytes. */
  hasMaster: boolean;
  recompute: RecomputePolicy;
  /** Memory for the logits of one chunk of the loss. */
  chunkBytes: number;
}

const defaultSequences = [4, 2, 1] as const;
const policies = ["none", "norm-activation", "block"] as const;
/** Of the GPU's memory, left to scratch and to what the estimate does not know. */
const spareBytes = 3 * 2 ** 30;

/** Bytes of a step at its peak. */
function estimateBytes({
  config,
  isFrozen,
  hasMaster,
  numSequences,
  recompute,
  chunkBytes,
}: TrainingMeasurement): number {
  const numRows = numSequences * config.maxPositions;
  // Frozen weights need no inputs for gradients of theirs: the rows that recomputation saves are not kept anyway.
  const kept = isFrozen && recompute === "none" ? "norm-activation" : recompute;
  const states = { ...trainingStates, master: hasMaster };
  const memory = trainingMemory(config, { ...states, recompute: kept, numRows, chunkBytes });
  return isFrozen ? memory.parameters + memory.activations + memory.logits : memory.total;
}

/** The most sequences up to four, and among those the least recomputation, that memory allows; what is asked for stays. */
export function planTraining(
  device: Pick<Device, "memory">,
  asked: Pick<TrainingMeasurement, "config" | "isFrozen" | "hasMaster" | "chunkBytes"> & {
    numSequences: number | undefined;
    recompute: RecomputePolicy | undefined;
  },
): TrainingMeasurement {
  const { totalBytes = Infinity } = device.memory();
  let smallest: TrainingMeasurement | undefined;
  for (const numSequences of asked.numSequences === undefined ? defaultSequences : [asked.numSequences])
    for (const recompute of asked.recompute === undefined ? policies : [asked.recompute]) {
      smallest = { ...asked, numSequences, recompute };
      if (estimateBytes(smallest) + spareBytes <= totalBytes) return smallest;
    }
  invariant(smallest !== undefined, "at least one measurement is considered");
  return smallest;
}

/** A whole step at 4,096 with clip and update (bf16 moments), or forward and backward through frozen weights. */
export function measureTraining(context: Context, measurement: TrainingMeasurement): BenchFigure[] {
  const { config, numSequences, isFrozen, hasMaster } = measurement;
  const sequenceLength = config.maxPositions;
  const numTokens = numSequences * sequenceLength;
  context.device.resetPeakMemory();
  using decoder = new Decoder(
    context,
    config,
    isFrozen ? { dtype: "bf16" } : { dtype: "bf16", gradientDtype: "bf16" },
  );
  decoder.parameters.initialise(1);
  const tokens = Int32Array.from({ length: numTokens }, (_, row) => (row * 7919 + 13) % config.vocabSize);
  const targets = Int32Array.from(tokens, (_, row) => (row * 104729 + 7) % config.vocabSize);
  const batch = { tokens, targets, numSequences, sequenceLength };
  const seconds = isFrozen
    ? timeFrozen(context, decoder, { batch, measurement })
    : timeStep(context, decoder, { batch, measurement });
  const { training } = operationsPerToken(config, sequenceLength);
  // Frozen weights take no weight gradient: a third of the matrix work is not there.
  const attention = training - 6 * countMatmulParameters(config);
  const operations = isFrozen ? 4 * countMatmulParameters(config) + attention : training;
  const value = numTokens / seconds;
  const { peakLiveBytes } = context.device.memory();
  const memory = `${formatBytes(peakLiveBytes)} (estimated ${formatBytes(estimateBytes(measurement))})`;
  const step = `${numSequences} x ${sequenceLength} tokens, recompute ${measurement.recompute}${hasMaster ? ", f32 master" : ""}`;
  return [
    {
      name: isFrozen ? "lora-shaped step" : "train step",
      value,
      unit: "tok/s",
      limit: (matmulTflops * 1e12) / operations,
      details: `${((value * operations) / 1e12).toFixed(0)} TFLOP/s, ${(seconds * 1e3).toFixed(0)} ms, ${step}, ${memory}`,
      isPeerLine: (line) => line["what"] === (isFrozen ? "lora" : "train"),
      peerField: "tokens_per_s",
    },
  ];
}

/** 8 bytes a parameter, without a master copy. */
const trainingStates = { dtype: "bf16", gradientDtype: "bf16", moments: "bf16" } as const;

type Batch = Parameters<TrainingStep["run"]>[0][number];

interface Timed {
  readonly batch: Batch;
  readonly measurement: TrainingMeasurement;
}

function timeStep(context: Context, decoder: Decoder, { batch, measurement }: Timed): number {
  using optimizer = new AdamW(context, decoder.parameters, {
    betas: [0.9, 0.95],
    eps: 1e-8,
    weightDecay: 0.1,
    clip: 1,
    moments: trainingStates.moments,
    master: measurement.hasMaster,
  });
  optimizer.resetMasters(context);
  using step = new TrainingStep(context, {
    decoder,
    optimizer,
    recompute: measurement.recompute,
    chunkBytes: measurement.chunkBytes,
  });
  let count = 0;
  return time(
    context,
    () => {
      count++;
      step.run([batch], { step: count, learningRate: 1e-5, seed: 1, skipAboveNorm: 0 });
    },
    { numRuns: 4, perRun: 2 },
  );
}

function timeFrozen(context: Context, decoder: Decoder, { batch, measurement }: Timed): number {
  const { tokens, targets, numSequences, sequenceLength } = batch;
  const upload = (values: Int32Array): Tensor => context.tensor(values, [values.length], "i32");
  return context.scope(() => {
    const positions = upload(tokens.map((_, row) => row % sequenceLength));
    const sequences = { tokens: upload(tokens), positions, numSequences, sequenceLength };
    const wanted = upload(targets);
    return time(
      context,
      () =>
        context.scope(() => {
          using tape = new Tape(measurement.recompute);
          context.withTape(tape, () =>
            decoder.loss(context, sequences, {
              targets: wanted,
              gradientScale: 1 / tokens.length,
              chunkBytes: measurement.chunkBytes,
              reachesEmbedding: true,
            }),
          );
          tape.backward(context);
        }),
      { numRuns: 4, perRun: 2 },
    );
  });
}
