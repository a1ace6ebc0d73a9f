/**
 * Attention over sequences of 4096 rows, forward and backward, as the layers of an 8B model call it: q, k and v are slices of one
 * buffer. Work is counted as 2 products of S x S / 2 scores forward (4 B H S^2 D / 2) and 2.5 times that backward.
 * `NAUTILUS_ATTENTION=own|cudnn node bench/cuda-attention.ts`. The limit is the data sheet's 989 TFLOP/s of an H200 SXM.
 */
import { createCudaDevice, type CudaDevice } from "../src/device/cuda/index.ts";
import type { TensorArgument } from "../src/device/index.ts";
import { randomMatrix } from "./randomMatrix.ts";

const peakTflops = 989;
const [B, S, D] = [2, 4096, 128];

function time(
  device: CudaDevice,
  queue: () => void,
): { firstMs: number; ms: number; hostMicroseconds: number } {
  const numRuns = 30;
  let start = performance.now();
  queue();
  device.synchronize();
  const firstMs = performance.now() - start;
  for (let run = 0; run < 5; run++) queue();
  device.synchronize();
  start = performance.now();
  for (let run = 0; run < numRuns; run++) queue();
  const hostMicroseconds = (1000 * (performance.now() - start)) / numRuns;
  device.synchronize();
  return { firstMs, ms: (performance.now() - start) / numRuns, hostMicroseconds };
}

function bench(
  device: CudaDevice,
  options: { H: number; G: number; label: string; lengths?: readonly number[] },
): void {
  const { H, G, label, lengths } = options;
  const numSequences = lengths?.length ?? B;
  const numRows = B * S;
  const rowStride = (H + 2 * G) * D;
  const qkv = randomMatrix(device, numRows * rowStride);
  const dqkv = randomMatrix(device, numRows * rowStride);
  const o = randomMatrix(device, numRows * H * D);
  const doutput = randomMatrix(device, numRows * H * D);
  const logSumExp: TensorArgument = { buffer: device.allocate(numRows * H * 4), byteOffset: 0, dtype: "f32" };
  const slices = ({ buffer }: TensorArgument): readonly TensorArgument[] =>
    [0, H, H + G].map((head) => ({ buffer, byteOffset: head * D * 2, dtype: "bf16" }));
  const [q, k, v] = slices(qkv);
  const [dq, dk, dv] = slices(dqkv);
  const sizes = {
    numSequences,
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
    causal: 1,
    scale: 1 / Math.sqrt(D),
  };
  const squares = (lengths ?? [S, S]).reduce((sum, length) => sum + length ** 2, 0);
  const flops = (4 * H * squares * D) / 2;
  const cuSeqLens: TensorArgument = {
    buffer: device.allocate(4 * (numSequences + 1)),
    byteOffset: 0,
    dtype: "i32",
  };
  const starts = (lengths ?? []).map((_, index, all) => all.slice(0, index + 1).reduce((a, b) => a + b, 0));
  device.upload(cuSeqLens.buffer, 0, new Uint8Array(Int32Array.from([0, ...starts]).buffer));
  const packing = lengths === undefined ? {} : { cuSeqLens };
  const report = (name: string, work: number, queue: () => void): void => {
    const { firstMs, ms, hostMicroseconds } = time(device, queue);
    const tflops = work / ms / 1e9;
    console.log(
      `${`${label} ${name} H=${H} G=${G}`.padEnd(40)} ${ms.toFixed(3)} ms ${tflops.toFixed(0).padStart(5)} TFLOP/s ` +
        `of ${peakTflops}: ${((100 * tflops) / peakTflops).toFixed(1)} %; first call ${firstMs.toFixed(0)} ms, ` +
        `host ${hostMicroseconds.toFixed(1)} us`,
    );
  };
  report("forward", flops, () =>
    device.run("attentionForward", { q, k, v, o, logSumExp, ...packing, ...sizes }),
  );
  report("backward", 2.5 * flops, () =>
    device.run("attentionBackward", { q, k, v, o, doutput, logSumExp, dq, dk, dv, ...packing, ...sizes }),
  );
  for (const { buffer } of [qkv, dqkv, o, doutput, logSumExp, cuSeqLens]) buffer.dispose();
}

/** Documents of several lengths in one row of memory, as many rows as the uniform case has. */
const packedLengths = [4096, 2048, 1024, 512, 512];

for (const deterministic of [false, true]) {
  const device = createCudaDevice({ deterministic });
  const label = deterministic ? "deterministic" : "usual";
  console.log(`${device.description}; B=${B} S=${S} D=${D} causal bf16`);
  bench(device, { H: 32, G: 32, label });
  bench(device, { H: 32, G: 4, label });
  if (!deterministic) {
    bench(device, { H: 32, G: 32, label: "packed", lengths: packedLengths });
    bench(device, { H: 32, G: 4, label: "packed", lengths: packedLengths });
  }
  device.dispose();
}
