/**
 * The head is run for rows with a target alone: losses and every gradient are those of a head over all rows, on every device; where all rows
 * have a target nothing is gathered.
 */
import { expect, it } from "vitest";
import { Decoder } from "../../src/models/index.ts";
import { Context, Tape } from "../../src/tensor/index.ts";
import { ignoreIndex } from "../../src/train/index.ts";
import type { HostBatch } from "../../src/train/index.ts";
import { targetRowsOf, uploadBatch } from "../../src/train/step.ts";
import { openOrSkip } from "../open-device.ts";
import { randomData, tinyConfig } from "../tiny-model.ts";

const numSequences = 3;
const sequenceLength = 40;
const numRows = numSequences * sequenceLength;
const allRows = Int32Array.from({ length: numRows }, (_, row) => row);

/** Sequences that begin with a prompt, longer from one to the next; the first has no last target either. */
function promptedBatch(): HostBatch {
  const batch = randomData(sequenceLength).batch(0, numSequences);
  for (let sequence = 0; sequence < numSequences; sequence++) {
    const begin = sequence * sequenceLength;
    batch.targets.fill(ignoreIndex, begin, begin + 8 + 9 * sequence);
  }
  batch.targets[sequenceLength - 1] = ignoreIndex;
  return batch;
}

type Objective = "next token" | "a factor for each row";

/** Losses of all rows, and gradients of all weights. */
function lossOf(
  context: Context,
  { objective, isHeadForAll }: { objective: Objective; isHeadForAll: boolean },
): { losses: Float64Array; gradients: Float64Array[] } {
  using decoder = new Decoder(context, tinyConfig, { dtype: "f32", gradientDtype: "f32" });
  decoder.parameters.initialise(11);
  const batch = promptedBatch();
  const rows = (isHeadForAll ? undefined : targetRowsOf(batch.targets)) ?? allRows;
  using tape = new Tape();
  const losses = context.scope(() => {
    const { sequences, ...targets } = uploadBatch(context, batch);
    const options = {
      ...(isHeadForAll ? { targets: context.tensor(batch.targets, [numRows], "i32") } : targets),
      ignoreIndex,
      // Chunks that end within the rows, whether the head has all of them or some.
      chunkBytes: 23 * tinyConfig.vocabSize * 4,
    };
    const isSeeded = objective === "a factor for each row";
    const result = context.withTape(tape, () =>
      isSeeded
        ? decoder.tokenLosses(context, sequences, options)
        : decoder.loss(context, sequences, { ...options, gradientScale: 1 / 30 }),
    );
    const factors = Array.from(rows, (row) => Math.sin(row + 1));
    const gradient = context.tensor(factors, [factors.length], "f32");
    tape.backward(context, isSeeded ? [{ tensor: result, gradient }] : []);
    const values = result.toArray();
    const ofAllRows = new Float64Array(numRows);
    for (const [index, row] of rows.entries()) ofAllRows[row] = values[index];
    return ofAllRows;
  });
  const gradients = [...decoder.parameters].map(({ gradient }) => gradient?.toArray() ?? new Float64Array());
  return { losses, gradients };
}

function relativeError(got: Float64Array, expected: Float64Array): number {
  const scale = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-30);
  return expected.reduce((worst, value, i) => Math.max(worst, Math.abs(got[i] - value)), 0) / scale;
}

const onEveryDevice = (["reference", "cpu", "cuda"] as const).flatMap((device) =>
  (["next token", "a factor for each row"] as const).map((objective) => ({ device, objective })),
);

it.for(onEveryDevice)("$objective, on $device", async ({ device: kind, objective }, test) => {
  using device = await openOrSkip(kind, test);
  const context = new Context(device);
  const liveBytes = device.memory().liveBytes;
  const all = lossOf(context, { objective, isHeadForAll: true });
  const some = lossOf(context, { objective, isHeadForAll: false });
  expect(device.memory().liveBytes).toBe(liveBytes);
  expect(relativeError(some.losses, all.losses)).toBeLessThan(2e-6);
  // Chunks end at other rows, so the head's gradient is added up in another order.
  for (const [index, gradient] of some.gradients.entries())
    expect(relativeError(gradient, all.gradients[index])).toBeLessThan(1e-5);
});

it("names the rows with a target, filled up with one that has none, or leaves all as they are", () => {
  const { targets } = promptedBatch();
  const rows = targetRowsOf(targets);
  const learnt = [...allRows].filter((row) => targets[row] !== ignoreIndex);
  expect(learnt.length).toBe(68);
  expect([...(rows ?? [])]).toEqual([...Array.from({ length: 80 - 68 }, () => 0), ...learnt]);
  expect(targetRowsOf(randomData(sequenceLength).batch(0, numSequences).targets)).toBeUndefined();
  // Less than 16 rows would be left out.
  expect(targetRowsOf(allRows.map((row) => (row % 40 === 0 ? ignoreIndex : row)))).toBeUndefined();
  expect(targetRowsOf(new Int32Array(64).fill(ignoreIndex))?.length).toBe(16);
});
