/** Numbers for GPU benches: what is measured must not be zeros, which draw less power and run faster. */
import { encodeValues } from "../src/base/index.ts";
import type { Device, TensorArgument } from "../src/device/index.ts";

/** So many numbers from a stretch of random ones: enough that neighbouring rows differ. */
const mostDrawn = 1 << 22;

/** bf16 numbers below `scale` in size, one stretch of random ones over and over. The caller disposes the buffer. */
export function randomMatrix(device: Device, numElements: number, scale = 1): TensorArgument {
  const values = new Float32Array(Math.min(numElements, mostDrawn));
  for (let index = 0; index < values.length; index++) values[index] = (Math.random() * 2 - 1) * scale;
  const bytes = encodeValues("bf16", values);
  const buffer = device.allocate(numElements * 2);
  device.upload(buffer, 0, bytes);
  for (let filled = bytes.byteLength; filled < buffer.byteLength; filled *= 2)
    device.copy(buffer, 0, buffer, filled, Math.min(filled, buffer.byteLength - filled));
  return { buffer, byteOffset: 0, dtype: "bf16" };
}
