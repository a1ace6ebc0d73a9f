/**
 * Cases of penalties and sampling. The drawn token must be the reference's, so rows whose draw would change with a last-bit change of a
 * probability are given another counter: a float32 sum of weights decides them as well as a float64 one.
 */
import { fromBf16Bits, philox, toBf16Bits, uniformFromBits } from "../../../src/base/index.ts";
import { drawToken, type DrawOptions } from "../../../src/device/reference/sampling.ts";
import { close, conformanceCase, numbers, operand, type ConformanceCase } from "../case.ts";
import type { Values } from "../random.ts";

type RowOptions = Omit<DrawOptions, "uniform">;

const greedy: RowOptions = { temperature: 0, topK: 0, topP: 1, minP: 0 };
/** Each cut alone, none, and all together. */
const rowOptions: readonly RowOptions[] = [
  greedy,
  { temperature: 1, topK: 0, topP: 1, minP: 0 },
  { temperature: 1.3, topK: 0, topP: 0.9, minP: 0 },
  { temperature: 0.9, topK: 40, topP: 0.8, minP: 0.02 },
  { temperature: 0.7, topK: 1, topP: 0.5, minP: 0 },
  { temperature: 0.8, topK: 5, topP: 1, minP: 0 },
  { temperature: 1, topK: 0, topP: 0, minP: 0.05 },
  { temperature: 2, topK: 100_000_000, topP: 0.3, minP: 0 },
];

const settings = [
  { numRows: 0, vocabSize: 7, std: 1 },
  { numRows: 16, vocabSize: 7, std: 1 },
  { numRows: 32, vocabSize: 1003, std: 2 },
  { numRows: 9, vocabSize: 32_000, std: 3 },
  { numRows: 4, vocabSize: 256_000, std: 3 },
];

/** Relative size of the rounding errors that a draw must withstand. */
const margin = 3e-5;

/** Whether no small change of the probabilities changes the draw. */
function isStable(scores: Float64Array, options: RowOptions, uniform: number): boolean {
  const { temperature, topK, topP, minP } = options;
  if (temperature === 0 || topK === 1) return true;
  const token = drawToken(scores, { ...options, uniform });
  const changes = [-margin, margin];
  return changes.every((cut) =>
    changes.every((move) => {
      const moved = Math.min(Math.max(uniform + move, 0), 1 - 2 ** -24);
      const changed = { temperature, topK, topP: topP * (1 + cut), minP: minP * (1 + cut), uniform: moved };
      return drawToken(scores, changed) === token;
    }),
  );
}

function firstStableCounter(scores: Float64Array, options: RowOptions, seed: number): number {
  const start = 2 ** 32 - 5;
  for (let counter = start; counter < start + 200; counter++) {
    if (isStable(scores, options, uniformFromBits(philox(seed, counter)[0]))) return counter;
  }
  throw new RangeError("no stable draw: the logits are too flat");
}

function sampleCases(): ConformanceCase[] {
  return settings.map(({ numRows, vocabSize, std }) =>
    conformanceCase("sample", `${numRows} rows of ${vocabSize}`, (data) => {
      const rows = Array.from({ length: numRows }, (_, row) => rowOptions[row % rowOptions.length]);
      const column = (name: keyof RowOptions): number[] => rows.map((row) => row[name]);
      const seeds = rows.map((_, row) => 2 ** 33 * row + 77 + row);
      const logits = data.normal(numRows * vocabSize, { std });
      return {
        logits: operand("f32", numRows, { width: vocabSize, values: withTies(logits) }),
        temperature: numbers("f32", column("temperature")),
        topK: numbers("i32", column("topK")),
        topP: numbers("f32", column("topP")),
        minP: numbers("f32", column("minP")),
        seeds: numbers("i64", seeds),
        counters: operand("i64", numRows, {
          values: once(() => {
            const all = withTies(logits)();
            return Float64Array.from(rows, (row, i) =>
              firstStableCounter(all.subarray(i * vocabSize, (i + 1) * vocabSize), row, seeds[i]),
            );
          }),
        }),
        tokens: operand("i32", numRows),
        logprobs: operand("f32", numRows, { check: close({ length: vocabSize, scale: 1 }) }),
        numRows,
        vocabSize,
      };
    }),
  );
}

/** A thunk that computes its values only once. */
function once(compute: Values): Values {
  let values: Float64Array | undefined;
  return () => (values ??= compute());
}

/** Rounded to bf16, as a model's logits are: then many are equal, the highest too. */
function withTies(logits: Values): Values {
  return () => logits().map((value) => fromBf16Bits(toBf16Bits(value)));
}

/** A row of given logits with a given cut, drawn with many seeds, so that all that is kept and nothing else comes up. */
function cutCase(label: string, scores: readonly number[], options: Partial<RowOptions>): ConformanceCase {
  const numRows = 64;
  const row = { temperature: 1, topK: 0, topP: 1, minP: 0, ...options };
  const repeated = (value: number): number[] => Array.from({ length: numRows }, () => value);
  return conformanceCase("sample", label, () => ({
    logits: operand("f32", numRows, {
      width: scores.length,
      values: () => Float64Array.from(Array.from({ length: numRows }, () => scores).flat()),
    }),
    temperature: numbers("f32", repeated(row.temperature)),
    topK: numbers("i32", repeated(row.topK)),
    topP: numbers("f32", repeated(row.topP)),
    minP: numbers("f32", repeated(row.minP)),
    seeds: numbers(
      "i64",
      Array.from({ length: numRows }, (_, i) => i),
    ),
    counters: operand("i64", numRows, {
      values: () =>
        Float64Array.from({ length: numRows }, (_, i) =>
          firstStableCounter(Float64Array.from(scores), row, i),
        ),
    }),
    tokens: operand("i32", numRows),
    logprobs: operand("f32", numRows, { check: close({ length: scores.length, scale: 1 }) }),
    numRows,
    vocabSize: scores.length,
  }));
}

const cutCases: readonly ConformanceCase[] = [
  cutCase("topK 2 keeps ties with the second", [1, 3, 2, 2, 0, 2], { topK: 2 }),
  cutCase("topP 0.5 keeps ties with the last", [0, 1, 1, 1, 0, -3], { topP: 0.5 }),
  cutCase("topP after topK", [2, 1.5, 1, 0.5, 0, -0.5], { topK: 3, topP: 0.7 }),
  cutCase("minP alone", [2, 1.5, 1, -3, 0, -0.5], { minP: 0.3 }),
  cutCase("tiny topP keeps the highest", [0.5, 1, 2, 1.9], { topP: 1e-4 }),
  cutCase("minP 1 keeps the highest and its equals", [2, 1.5, 2, -3], { minP: 1 }),
  cutCase("masked logits", [-Infinity, 1, -Infinity, 0.5, 2], {}),
  cutCase("greedy takes the first of equals", [1, 4, 2, 4, 4], { temperature: 0 }),
  cutCase("a single token", [3], { topP: 0.5, topK: 4 }),
];

function penaltyCases(): ConformanceCase[] {
  const shapes = [
    { numRows: 0, vocabSize: 5, maxHistory: 3 },
    { numRows: 4, vocabSize: 7, maxHistory: 12 },
    { numRows: 6, vocabSize: 1003, maxHistory: 500 },
    { numRows: 2, vocabSize: 256_000, maxHistory: 64 },
  ];
  return shapes.map(({ numRows, vocabSize, maxHistory }) =>
    conformanceCase("applyPenalties", `${numRows} rows of ${vocabSize}, history ${maxHistory}`, (data) => {
      const lengths = data.integers(numRows, 1, maxHistory + 1);
      const drawn = data.integers(numRows * maxHistory, 0, Math.min(vocabSize, 2 * maxHistory));
      // Beyond a row's length stands -1, which is no token.
      const history = (): Float64Array => {
        const used = lengths();
        return drawn().map((token, i) =>
          i % maxHistory < used[Math.floor(i / maxHistory)] && i >= maxHistory ? token : -1,
        );
      };
      return {
        logits: operand("f32", numRows, {
          width: vocabSize,
          values: data.normal(numRows * vocabSize),
          check: close(),
        }),
        history: operand("i32", numRows, { width: maxHistory, values: history }),
        // The first row has no history yet.
        historyLengths: operand("i32", numRows, {
          values: () => lengths().map((length, row) => (row === 0 ? 0 : length)),
        }),
        repetition: operand("f32", numRows, { values: data.uniform(numRows, 1, 2) }),
        presence: operand("f32", numRows, { values: data.uniform(numRows, -1, 1) }),
        frequency: operand("f32", numRows, { values: data.uniform(numRows, -1, 1) }),
        numRows,
        vocabSize,
        maxHistory,
      };
    }),
  );
}

export function samplingCases(): ConformanceCase[] {
  return [...sampleCases(), ...cutCases, ...penaltyCases()];
}
