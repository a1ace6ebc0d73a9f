/** Tensors of given numbers on a device, and back: for tests of operators below the tensor layer. */
import { decodeValues, encodeValues, type Dtype } from "../src/base/index.ts";
import type { Device, TensorArgument } from "../src/device/index.ts";

/** A tensor in a buffer of its own. */
export function placeTensor(device: Device, dtype: Dtype, values: ArrayLike<number>): TensorArgument {
  const bytes = encodeValues(dtype, values);
  const buffer = device.allocate(bytes.byteLength);
  device.upload(buffer, 0, bytes);
  return { buffer, byteOffset: 0, dtype };
}

/** The values of a tensor, to the end of its buffer. */
export function readTensor({ buffer, byteOffset, dtype }: TensorArgument): number[] {
  const bytes = new Uint8Array(buffer.byteLength - byteOffset);
  buffer.device.download(buffer, byteOffset, bytes);
  return Array.from(decodeValues(dtype, bytes));
}
