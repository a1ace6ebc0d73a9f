/**
 * Encoders of P-tuning against PEFT's: its weights in our networks give its virtual tokens. Fixtures: make_encoders of test/fixtures/generate/adapters.py.
 */
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { decodeValues } from "../../src/base/index.ts";
import { openSafetensors } from "../../src/checkpoint/index.ts";
import type { TensorSource } from "../../src/checkpoint/index.ts";
import { openDevice } from "../../src/device/index.ts";
import type { Device } from "../../src/device/index.ts";
import { promptEncoders } from "../../src/models/adapters/encoder.ts";
import { Context, ParameterStore } from "../../src/tensor/index.ts";

const path = fileURLToPath(new URL("../fixtures/adapters/encoders.safetensors", import.meta.url));
const numTokens = 5;
const width = 8;
const hidden = 6;

let device: Device;
let context: Context;
let source: TensorSource;
beforeAll(async () => {
  device = await openDevice({ kind: "cpu" });
  context = new Context(device);
  source = openSafetensors(path);
});
afterAll(() => {
  source.dispose();
  expect(device.memory().liveBytes).toBe(0);
  device.dispose();
});

/** A tensor of the file as rows. */
function rowsOf(name: string): number[][] {
  const { shape } = source.info(name);
  const values = decodeValues("f32", source.read(name));
  const numColumns = shape.at(-1) ?? 1;
  const numRows = values.length / numColumns;
  return Array.from({ length: numRows }, (_, row) => [
    ...values.subarray(row * numColumns, (row + 1) * numColumns),
  ]);
}

/** Rows of one gate: PyTorch stacks input, forget, cell, output. */
function gateRows(name: string, gate: number): number[][] {
  const rows = rowsOf(name);
  const flat = rows.length === 1 ? rows[0].map((value) => [value]) : rows;
  return flat.slice(gate * hidden, (gate + 1) * hidden);
}

const halves = (rows: number[][]): number[][][] => [
  rows.map((row) => row.slice(0, row.length / 2)),
  rows.map((row) => row.slice(row.length / 2)),
];

/** PEFT's weights of the LSTM under our names. */
function lstmWeights(numLayers: number): Map<string, number[][]> {
  const weights = new Map([
    ["table.weight", rowsOf("LSTM.embedding.weight")],
    ["head.bias", rowsOf("LSTM.mlp_head.0.bias")],
    ["head.out.weight", rowsOf("LSTM.mlp_head.2.weight")],
    ["head.out.bias", rowsOf("LSTM.mlp_head.2.bias")],
  ]);
  const [fromForward, fromBackward] = halves(rowsOf("LSTM.mlp_head.0.weight"));
  weights.set("head.forward.weight", fromForward).set("head.backward.weight", fromBackward);
  for (let level = 0; level < numLayers; level++) {
    for (const [direction, suffix] of [
      ["forward", ""],
      ["backward", "_reverse"],
    ] as const) {
      for (const [gate, gateName] of ["input", "forget", "cell", "output"].entries()) {
        const name = (kind: string): string => `LSTM.lstm_head.${kind}_l${level}${suffix}`;
        const prefix = `lstm.${level}.${direction}.${gateName}`;
        const below = gateRows(name("weight_ih"), gate);
        if (level === 0) weights.set(`${prefix}.below.weight`, below);
        else {
          const [forward, backward] = halves(below);
          weights.set(`${prefix}.forward.weight`, forward).set(`${prefix}.backward.weight`, backward);
        }
        // PyTorch has two biases where one serves.
        const biases = ["bias_ih", "bias_hh"].map((kind) => gateRows(name(kind), gate));
        weights.set(`${prefix}.before.weight`, gateRows(name("weight_hh"), gate)).set(
          `${prefix}.before.bias`,
          biases[0].map((row, i) => [row[0] + biases[1][i][0]]),
        );
      }
    }
  }
  return weights;
}

const mlpWeights = (): Map<string, number[][]> =>
  new Map([
    ["table.weight", rowsOf("MLP.embedding.weight")],
    ...[0, 1, 2].flatMap((i) =>
      ["weight", "bias"].map((kind): [string, number[][]] => [
        `mlp.${i}.${kind}`,
        rowsOf(`MLP.mlp_head.${2 * i}.${kind}`),
      ]),
    ),
  ]);

const cases = [
  { kind: "mlp", peft: "MLP", numLayers: 1, weights: mlpWeights },
  { kind: "lstm", peft: "LSTM", numLayers: 2, weights: () => lstmWeights(2) },
] as const;

describe("prompt encoders", () => {
  it.each(cases)("$kind: PEFT's virtual tokens from PEFT's weights", ({ kind, peft, numLayers, weights }) => {
    const shape = { numTokens, width, hidden, numLayers, initStd: 0.02 };
    const network = promptEncoders[kind];
    using store = new ParameterStore(device, network.specs(shape), { dtype: "f32" });
    const theirs = weights();
    expect([...store].map(({ name }) => name).toSorted()).toEqual([...theirs.keys()].toSorted());
    for (const [name, rows] of theirs) store.get(name).set(rows.flat());
    const got = context.scope(() => network.run(context, store, shape).toArray());
    const expected = rowsOf(`${peft}.out`).flat();
    expect(got.length).toBe(expected.length);
    for (const [i, value] of expected.entries()) expect(Math.abs(got[i] - value)).toBeLessThan(2e-6);
    // Every weight counts: without any one of them the virtual tokens are others.
    for (const [name, rows] of theirs) {
      store.get(name).set(rows.flat().map((value) => value + 0.5));
      const moved = context.scope(() => network.run(context, store, shape).toArray());
      expect(
        moved.some((value, i) => Math.abs(value - expected[i]) > 1e-5),
        name,
      ).toBe(true);
      store.get(name).set(rows.flat());
    }
  });
});
