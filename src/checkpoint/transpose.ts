/** Transposition of matrices as bytes, for checkpoints that store them the other way round (GPT-2's Conv1D). */
import { invariant } from "../base/index.ts";
import { storedDtypeBytes } from "./source.ts";
import type { StoredTensor } from "./source.ts";

/** Rows of a tile: both sides of a tile stay in the cache of a core. */
const tile = 32;

/** Bytes of a (numRows, numColumns) matrix as those of its transpose. */
export function transposeBytes(
  bytes: Uint8Array<ArrayBuffer>,
  { numRows, numColumns, itemBytes }: { numRows: number; numColumns: number; itemBytes: number },
): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(bytes.byteLength);
  const [from, to] = [itemsOf(bytes, itemBytes), itemsOf(out, itemBytes)];
  for (let rowStart = 0; rowStart < numRows; rowStart += tile) {
    const rowEnd = Math.min(rowStart + tile, numRows);
    for (let column = 0; column < numColumns; column++) {
      for (let row = rowStart; row < rowEnd; row++)
        to[column * numRows + row] = from[row * numColumns + column];
    }
  }
  return out;
}

type Items = Uint16Array | Uint32Array | Float64Array;

/** Moved as integers where there are any of the width: a float register would quieten signalling NaNs. */
function itemsOf({ buffer, byteOffset, byteLength }: Uint8Array, itemBytes: number): Items {
  if (itemBytes === 2) return new Uint16Array(buffer, byteOffset, byteLength / 2);
  if (itemBytes === 4) return new Uint32Array(buffer, byteOffset, byteLength / 4);
  invariant(itemBytes === 8, "elements of 2, 4 or 8 bytes");
  return new Float64Array(buffer, byteOffset, byteLength / 8);
}

/**
 * The transpose of a stored matrix. Its rows are columns of what is stored, so that the whole is read and turned at the first read, and held
 * until the last byte was read or another is turned.
 */
export function transposedTensor(
  tensor: StoredTensor,
  held: { of: StoredTensor | undefined; bytes: Uint8Array },
): StoredTensor {
  const [numRows, numColumns = 1] = tensor.shape;
  const { dtype, byteLength } = tensor;
  return {
    dtype,
    shape: [numColumns, numRows],
    byteLength,
    readRange(into, byteOffset) {
      if (held.of !== tensor) {
        const stored = new Uint8Array(byteLength);
        tensor.readRange(stored, 0);
        held.bytes = transposeBytes(stored, { numRows, numColumns, itemBytes: storedDtypeBytes[dtype] });
        held.of = tensor;
      }
      into.set(held.bytes.subarray(byteOffset, byteOffset + into.byteLength));
      if (byteOffset + into.byteLength < byteLength) return;
      held.of = undefined;
      held.bytes = new Uint8Array();
    },
  };
}
