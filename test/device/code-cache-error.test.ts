/**
 * Attention over a cache of E4M3 codes against attention over what was cached, in float64. The error is held to what independent roundings give:
 * a code is at most half a step off, evenly spread, so that component i of a key or value errs with variance step_i^2 / 12; scores err by the
 * queries' share of it, and outputs, to first order, by that of the values and by the weights' changes.
 */
import { expect, it } from "vitest";
import { placeTensor, readTensor } from "../host-tensors.ts";
import { everyDevice, openAnyOrSkip } from "./every-device.ts";

const numSequences = 24;
const context = 70;
const numHeads = 4;
const numKvHeads = 2;
const headDim = 64;
const blockSize = 16;
const blocksEach = Math.ceil(context / blockSize);
const numSlots = numSequences * blocksEach * blockSize;
const scale = 1 / Math.sqrt(headDim);
const kvWidth = numKvHeads * headDim;

/** Normal numbers from a fixed generator (mulberry32). */
function normal(count: number, seed: number): Float64Array {
  let state = seed;
  const next = (): number => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return (((mixed ^ (mixed >>> 14)) >>> 0) + 0.5) / 2 ** 32;
  };
  return Float64Array.from({ length: count }, () =>
    Math.fround(Math.sqrt(-2 * Math.log(next())) * Math.cos(2 * Math.PI * next())),
  );
}

/** Squares of the errors to expect of a head's components: its scale is its largest magnitude by 448. */
function variancesOf(head: Float64Array): Float64Array {
  const scale = head.reduce((most, value) => Math.max(most, Math.abs(value)), 0) / 448;
  return head.map((value) => {
    const exponent = Math.max(-6, Math.floor(Math.log2(Math.abs(value) / scale)));
    return (scale * 2 ** (exponent - 3)) ** 2 / 12;
  });
}

it.for([...everyDevice])("%s", async (kind, test) => {
  using device = await openAnyOrSkip(kind, test);
  const numTokens = numSequences * context;
  const q = normal(numSequences * numHeads * headDim, 1);
  const k = normal(numTokens * kvWidth, 2);
  const v = normal(numTokens * kvWidth, 3);
  const slotOf = (sequence: number, token: number): number => sequence * blocksEach * blockSize + token;
  const caches = {
    kCache: placeTensor(device, "u8", new Float64Array(numSlots * kvWidth)),
    vCache: placeTensor(device, "u8", new Float64Array(numSlots * kvWidth)),
    kScales: placeTensor(device, "f32", new Float64Array(numSlots * numKvHeads)),
    vScales: placeTensor(device, "f32", new Float64Array(numSlots * numKvHeads)),
    numSlots,
    numKvHeads,
    headDim,
  };
  device.run("kvCacheWrite", {
    ...caches,
    k: placeTensor(device, "f32", k),
    v: placeTensor(device, "f32", v),
    slots: placeTensor(
      device,
      "i32",
      Array.from({ length: numTokens }, (_, row) => slotOf(Math.floor(row / context), row % context)),
    ),
    numRows: numTokens,
    kRowStride: kvWidth,
    vRowStride: kvWidth,
  });
  const o = placeTensor(device, "f32", new Float64Array(q.length));
  device.run("attentionPaged", {
    ...caches,
    q: placeTensor(device, "f32", q),
    blockTables: placeTensor(device, "i32", [...Array(numSequences * blocksEach).keys()]),
    contextLengths: placeTensor(
      device,
      "i32",
      Array.from({ length: numSequences }, () => context),
    ),
    queryStarts: placeTensor(device, "i32", [...Array(numSequences + 1).keys()]),
    o,
    numSequences,
    maxQueryLength: 1,
    numHeads,
    blockSize,
    maxBlocksPerSequence: blocksEach,
    qRowStride: numHeads * headDim,
    oRowStride: numHeads * headDim,
    scale,
  });
  device.synchronize();
  const got = readTensor(o);

  const standardised: number[] = [];
  for (let sequence = 0; sequence < numSequences; sequence++) {
    for (let head = 0; head < numHeads; head++) {
      const query = q.subarray((sequence * numHeads + head) * headDim).subarray(0, headDim);
      const kvHead = Math.floor((head * numKvHeads) / numHeads);
      const rowOf = (values: Float64Array, token: number): Float64Array => {
        const begin = ((sequence * context + token) * numKvHeads + kvHead) * headDim;
        return values.subarray(begin, begin + headDim);
      };
      const tokens = Array.from({ length: context }, (_, token) => {
        const key = rowOf(k, token);
        const keyVariances = variancesOf(key);
        return {
          score: scale * key.reduce((sum, value, i) => sum + value * query[i], 0),
          scoreVariance: scale ** 2 * keyVariances.reduce((sum, value, i) => sum + value * query[i] ** 2, 0),
          value: rowOf(v, token),
          valueVariances: variancesOf(rowOf(v, token)),
        };
      });
      const total = tokens.reduce((sum, { score }) => sum + Math.exp(score), 0);
      const weights = tokens.map(({ score }) => Math.exp(score) / total);
      for (let i = 0; i < headDim; i++) {
        const exact = tokens.reduce((sum, { value }, token) => sum + weights[token] * value[i], 0);
        const variance = tokens.reduce(
          (sum, { value, valueVariances, scoreVariance }, token) =>
            sum + weights[token] ** 2 * (valueVariances[i] + (value[i] - exact) ** 2 * scoreVariance),
          0,
        );
        const error = got[(sequence * numHeads + head) * headDim + i] - exact;
        standardised.push(error / Math.sqrt(variance));
      }
    }
  }
  const mean = standardised.reduce((sum, z) => sum + z, 0) / standardised.length;
  const size = Math.sqrt(standardised.reduce((sum, z) => sum + z * z, 0) / standardised.length);
  // 6,144 outputs, of which those of one head share the errors of its scores.
  expect(Math.abs(mean)).toBeLessThan(0.1);
  expect(size).toBeGreaterThan(0.9);
  expect(size).toBeLessThan(1.1);
  expect(Math.max(...standardised.map(Math.abs))).toBeLessThan(6);
});
