/**
 * Attention through cuDNN against float64, at sampled rows: each row of o, logSumExp and dq needs its query alone, each row of dk
 * and dv the queries that see it. Skipped without a GPU or without cuDNN.
 */
import { afterAll, beforeEach, describe, expect, it } from "vitest";
import { decodeValues, encodeValues, messageOf } from "../../src/base/index.ts";
import { createCudaDevice, type CudaDevice } from "../../src/device/cuda/index.ts";
import { Cudnn } from "../../src/device/cuda/cudnn/library.ts";
import type { DeviceBuffer, TensorArgument } from "../../src/device/index.ts";

interface Case {
  readonly B: number;
  /** Rows of every sequence; of the longest where they have `lengths` of their own. */
  readonly S: number;
  readonly lengths?: readonly number[];
  readonly H: number;
  readonly G: number;
  readonly D: number;
  readonly causal: 0 | 1;
}

let device: CudaDevice;
let deterministic: CudaDevice;

function open(): readonly CudaDevice[] | string {
  const before = process.env["NAUTILUS_ATTENTION"];
  process.env["NAUTILUS_ATTENTION"] = "cudnn";
  try {
    const devices = [createCudaDevice(), createCudaDevice({ deterministic: true })];
    // Throws where there is no cuDNN.
    void new Cudnn([13, 12]).version;
    return devices;
  } catch (error) {
    return messageOf(error);
  } finally {
    if (before === undefined) delete process.env["NAUTILUS_ATTENTION"];
    else process.env["NAUTILUS_ATTENTION"] = before;
  }
}
const opened = open();

beforeEach((context) => {
  if (typeof opened === "string") context.skip(opened);
  else [device, deterministic] = opened;
});
afterAll(() => {
  if (typeof opened !== "string") for (const each of opened) each.dispose();
});

/** Numbers in [-bound, bound) from a seed. */
function noise(length: number, seed: number, bound: number): Float32Array {
  const values = new Float32Array(length);
  let state = (seed * 2_654_435_761) >>> 0;
  for (let index = 0; index < length; index++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    values[index] = (state / 2 ** 31 - 1) * bound;
  }
  return values;
}

function upload(on: CudaDevice, values: Float32Array): { tensor: TensorArgument; rounded: Float32Array } {
  const bytes = encodeValues("bf16", values);
  const buffer = on.allocate(bytes.byteLength);
  on.upload(buffer, 0, bytes);
  return { tensor: { buffer, byteOffset: 0, dtype: "bf16" }, rounded: widen(bytes) };
}

function widen(bytes: Uint8Array): Float32Array {
  const halves = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2);
  const words = new Uint32Array(halves.length);
  for (let index = 0; index < halves.length; index++) words[index] = halves[index] << 16;
  return new Float32Array(words.buffer);
}

function download(on: CudaDevice, buffer: DeviceBuffer): Uint8Array {
  const bytes = new Uint8Array(buffer.byteLength);
  on.download(buffer, 0, bytes);
  return bytes;
}

/** First row of each sequence, and the number of rows. */
function startsOf({ B, S, lengths }: Case): number[] {
  const starts = [0];
  for (let b = 0; b < B; b++) starts.push(starts[b] + (lengths?.[b] ?? S));
  return starts;
}

/** Memory that holds NaN, so that a row that is not written shows. */
function spoilt(on: CudaDevice, byteLength: number): DeviceBuffer {
  const buffer = on.allocate(byteLength);
  on.upload(buffer, 0, new Uint8Array(byteLength).fill(0xff));
  return buffer;
}

/** Rows of H query heads, G key heads and G value heads side by side, as a fused projection leaves them. */
function run(on: CudaDevice, shape: Case, queue: (record: () => void) => void = (record) => record()) {
  const { B, S, H, G, D, causal } = shape;
  const starts = startsOf(shape);
  const numRows = starts[B];
  const rowStride = (H + 2 * G) * D;
  const qkv = upload(on, noise(numRows * rowStride, 1, 2));
  const doutput = upload(on, noise(numRows * H * D, 2, 1));
  const slices = ({ buffer }: TensorArgument): readonly TensorArgument[] =>
    [0, H, H + G].map((head) => ({ buffer, byteOffset: head * D * 2, dtype: "bf16" }));
  const o: TensorArgument = { buffer: spoilt(on, numRows * H * D * 2), byteOffset: 0, dtype: "bf16" };
  const logSumExp: TensorArgument = { buffer: spoilt(on, numRows * H * 4), byteOffset: 0, dtype: "f32" };
  const dqkv: TensorArgument = { buffer: spoilt(on, numRows * rowStride * 2), byteOffset: 0, dtype: "bf16" };
  const cuSeqLens: TensorArgument = { buffer: on.allocate(starts.length * 4), byteOffset: 0, dtype: "i32" };
  on.upload(cuSeqLens.buffer, 0, new Uint8Array(Int32Array.from(starts).buffer));
  const packing = shape.lengths === undefined ? {} : { cuSeqLens };
  const [q, k, v] = slices(qkv.tensor);
  const [dq, dk, dv] = slices(dqkv);
  const scale = 1 / Math.sqrt(D);
  const sizes = {
    numSequences: B,
    queryLength: S,
    keyLength: S,
    numRows,
    numHeads: H,
    numKvHeads: G,
    headDim: D,
    qRowStride: rowStride,
    kRowStride: rowStride,
    vRowStride: rowStride,
    oRowStride: H * D,
    causal,
    scale,
  };
  queue(() => {
    on.run("attentionForward", { q, k, v, o, logSumExp, ...packing, ...sizes });
    on.run("attentionBackward", {
      q,
      k,
      v,
      o,
      doutput: doutput.tensor,
      logSumExp,
      dq,
      dk,
      dv,
      ...packing,
      ...sizes,
    });
  });
  const gradientBytes = download(on, dqkv.buffer);
  const result = {
    qkv: qkv.rounded,
    doutput: doutput.rounded,
    o: widen(download(on, o.buffer)),
    logSumExp: decodeValues("f32", download(on, logSumExp.buffer)),
    dqkv: widen(gradientBytes),
    gradientBytes,
  };
  for (const { buffer } of [qkv.tensor, doutput.tensor, o, logSumExp, dqkv, cuSeqLens]) buffer.dispose();
  return result;
}

/** |a - b| / |b|, with a floor for rows whose gradient vanishes. */
function distance(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let difference = 0;
  let length = 0;
  for (let index = 0; index < b.length; index++) {
    difference += (a[index] - b[index]) ** 2;
    length += b[index] ** 2;
  }
  return Math.sqrt(difference) / (Math.sqrt(length) + 1e-3);
}

function dot(
  a: Float32Array,
  aStart: number,
  b: Float32Array,
  options: { start: number; D: number },
): number {
  let sum = 0;
  for (let d = 0; d < options.D; d++) sum += a[aStart + d] * b[options.start + d];
  return sum;
}

function check(shape: Case, result: ReturnType<typeof run>): Record<string, number> {
  const { B, S, H, G, D, causal } = shape;
  const starts = startsOf(shape);
  const numRows = starts[B];
  const lengthOf = (b: number): number => starts[b + 1] - starts[b];
  const { qkv, doutput, o, dqkv, logSumExp } = result;
  const rowStride = (H + 2 * G) * D;
  const scale = 1 / Math.sqrt(D);
  const group = H / G;
  const worst = { o: 0, logSumExp: 0, dq: 0, dk: 0, dv: 0 };
  const samples = [0, 1, 63, 64, 65, 127, S >> 1, S - 2, S - 1].flatMap((position, sample) => {
    const b = sample % B;
    return lengthOf(b) === 0 ? [] : [{ b, position: position % lengthOf(b) }];
  });
  samples.forEach(({ b, position: t }, sample) => {
    const h = (sample * 7) % H;
    const g = Math.floor(h / group);
    const row = starts[b] + t;
    const qAt = row * rowStride + h * D;
    const numKeys = causal === 1 ? t + 1 : lengthOf(b);
    const score = new Float64Array(numKeys);
    const kAt = (s: number): number => (starts[b] + s) * rowStride + (H + g) * D;
    const vAt = (s: number): number => (starts[b] + s) * rowStride + (H + G + g) * D;
    for (let s = 0; s < numKeys; s++) score[s] = scale * dot(qkv, qAt, qkv, { start: kAt(s), D });
    const maximum = score.reduce((a, c) => Math.max(a, c), -Infinity);
    const sum = score.reduce((a, c) => a + Math.exp(c - maximum), 0);
    const expected = maximum + Math.log(sum);
    worst.logSumExp = Math.max(worst.logSumExp, Math.abs(logSumExp[h * numRows + row] - expected));
    const output = new Float64Array(D);
    const dq = new Float64Array(D);
    const oAt = row * H * D + h * D;
    for (let s = 0; s < numKeys; s++)
      for (let d = 0; d < D; d++) output[d] += Math.exp(score[s] - expected) * qkv[vAt(s) + d];
    // The operator takes o as the forward pass rounded it.
    const rowSum = dot(doutput, oAt, o, { start: oAt, D });
    for (let s = 0; s < numKeys; s++) {
      const dp = dot(doutput, oAt, qkv, { start: vAt(s), D });
      const ds = Math.exp(score[s] - expected) * (dp - rowSum) * scale;
      for (let d = 0; d < D; d++) dq[d] += ds * qkv[kAt(s) + d];
    }
    worst.o = Math.max(worst.o, distance(o.subarray(oAt, oAt + D), output));
    worst.dq = Math.max(worst.dq, distance(dqkv.subarray(qAt, qAt + D), dq));
  });
  samples.forEach(({ b, position: s }, sample) => {
    const g = (sample * 3) % G;
    const kAt = (starts[b] + s) * rowStride + (H + g) * D;
    const vAt = kAt + G * D;
    const dk = new Float64Array(D);
    const dv = new Float64Array(D);
    for (let h = g * group; h < (g + 1) * group; h++) {
      for (let t = causal === 1 ? s : 0; t < lengthOf(b); t++) {
        const row = starts[b] + t;
        const qAt = row * rowStride + h * D;
        const oAt = (row * H + h) * D;
        const p = Math.exp(scale * dot(qkv, qAt, qkv, { start: kAt, D }) - logSumExp[h * numRows + row]);
        const rowSum = dot(doutput, oAt, o, { start: oAt, D });
        const ds = p * (dot(doutput, oAt, qkv, { start: vAt, D }) - rowSum) * scale;
        for (let d = 0; d < D; d++) {
          dv[d] += p * doutput[oAt + d];
          dk[d] += ds * qkv[qAt + d];
        }
      }
    }
    worst.dk = Math.max(worst.dk, distance(dqkv.subarray(kAt, kAt + D), dk));
    worst.dv = Math.max(worst.dv, distance(dqkv.subarray(vAt, vAt + D), dv));
  });
  return worst;
}

const cases: readonly Case[] = [
  { B: 2, S: 128, H: 4, G: 2, D: 64, causal: 1 },
  { B: 2, S: 200, H: 4, G: 4, D: 72, causal: 1 },
  { B: 2, S: 1000, H: 4, G: 2, D: 128, causal: 1 },
  { B: 2, S: 1000, H: 4, G: 4, D: 64, causal: 0 },
  { B: 2, S: 4096, H: 32, G: 4, D: 128, causal: 1 },
  { B: 1, S: 4096, H: 32, G: 32, D: 128, causal: 1 },
];

/** Rounding of p, ds and the results to bf16: about 2^-9 each, relative to the row's length. */
const tolerance = 0.01;

const packedCases: readonly Case[] = [
  { B: 6, S: 1000, lengths: [300, 1, 1000, 64, 700, 0], H: 4, G: 2, D: 128, causal: 1 },
  { B: 4, S: 512, lengths: [130, 257, 512, 5], H: 4, G: 4, D: 64, causal: 1 },
  { B: 3, S: 700, lengths: [700, 129, 40], H: 4, G: 2, D: 64, causal: 0 },
  { B: 5, S: 4096, lengths: [4096, 1500, 37, 2559, 0], H: 32, G: 4, D: 128, causal: 1 },
];

describe("attention through cuDNN", () => {
  for (const shape of [...cases, ...packedCases]) {
    it(`agrees with float64: ${JSON.stringify(shape)}`, { timeout: 30_000 }, () => {
      const result = run(device, shape);
      const worst = check(shape, result);
      for (const values of [result.o, result.logSumExp, result.dqkv])
        expect(values.findIndex((value) => !Number.isFinite(value))).toBe(-1);
      expect(worst["logSumExp"]).toBeLessThan(2e-4);
      for (const name of ["o", "dq", "dk", "dv"]) expect(worst[name], name).toBeLessThan(tolerance);
    });
  }

  it("gives the same in a graph, also where the plan is made during the capture", { timeout: 30_000 }, () => {
    const shape: Case = { B: 2, S: 640, H: 4, G: 2, D: 128, causal: 1 };
    const packed: Case = { B: 2, S: 640, lengths: [640, 77], H: 4, G: 2, D: 128, causal: 1 };
    for (const each of [shape, packed]) {
      const replayed = run(deterministic, each, (record) => {
        const graph = deterministic.capture(record);
        graph.replay();
        graph.replay();
        deterministic.synchronize();
        graph.dispose();
      });
      const eager = run(deterministic, each);
      expect(Buffer.compare(replayed.gradientBytes, eager.gradientBytes)).toBe(0);
      const worst = check(each, replayed);
      for (const name of ["o", "dq", "dk", "dv"]) expect(worst[name], name).toBeLessThan(tolerance);
    }
  });

  it("is bit-identical from run to run on a deterministic device", { timeout: 30_000 }, () => {
    const shape: Case = { B: 2, S: 1000, H: 4, G: 2, D: 128, causal: 1 };
    const first = run(deterministic, shape);
    const worst = check(shape, first);
    for (const name of ["o", "dq", "dk", "dv"]) expect(worst[name], name).toBeLessThan(tolerance);
    for (let round = 0; round < 3; round++)
      expect(Buffer.compare(run(deterministic, shape).gradientBytes, first.gradientBytes)).toBe(0);
  });
});
