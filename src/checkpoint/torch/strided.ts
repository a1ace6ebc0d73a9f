/** Strided windows on bytes, made row-major. Strides are in elements and not negative, as torch has them. */
import { invariant } from "../../base/index.ts";

/** Whether the window's elements lie one after the other. Axes of length one have no say. */
export function isContiguous(shape: readonly number[], strides: readonly number[]): boolean {
  let expected = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    if (shape[axis] !== 1 && strides[axis] !== expected) return false;
    expected *= shape[axis];
  }
  return true;
}

/** Copies the elements of a window that starts at the first byte of `span` into row-major order. */
export function gatherStrided(
  span: Uint8Array,
  { shape, strides, itemBytes }: { shape: readonly number[]; strides: readonly number[]; itemBytes: number },
): Uint8Array<ArrayBuffer> {
  const numElements = shape.reduce((product, length) => product * length, 1);
  const out = new Uint8Array(numElements * itemBytes);
  const from = elementView(span, itemBytes);
  const to = elementView(out, itemBytes);
  let at = 0;
  const copy = (axis: number, start: number): void => {
    const stride = strides[axis];
    const length = shape[axis];
    if (axis === shape.length - 1) {
      for (let i = 0; i < length; i++) to[at++] = from[start + i * stride];
    } else for (let i = 0; i < length; i++) copy(axis + 1, start + i * stride);
  };
  if (shape.length > 0) copy(0, 0);
  return out;
}

type ElementView = Uint8Array | Uint16Array | Uint32Array | Float64Array;

function elementView(bytes: Uint8Array, itemBytes: number): ElementView {
  const { buffer, byteOffset } = bytes;
  const length = Math.floor(bytes.byteLength / itemBytes);
  switch (itemBytes) {
    case 1:
      return bytes;
    case 2:
      return new Uint16Array(buffer, byteOffset, length);
    case 4:
      return new Uint32Array(buffer, byteOffset, length);
    default:
      invariant(itemBytes === 8, `elements of ${itemBytes} bytes`);
      return new Float64Array(buffer, byteOffset, length);
  }
}
