/**
 * A source in another float format: a view that converts while it is read, rounding to nearest even. Tensors of integers and of 8-bit
 * floats keep their dtype.
 */
import { decodeValues, encodeValues } from "../base/index.ts";
import type { RangeReader } from "./bytes.ts";
import { storedByteLength, storedDtypeBytes, tensorTable } from "./source.ts";
import type { StoredDtype, StoredTensor, TensorSource } from "./source.ts";

const castable = ["f64", "f32", "bf16", "f16"] as const;
type CastDtype = (typeof castable)[number];

function isCastable(dtype: StoredDtype): dtype is CastDtype {
  return castable.some((candidate) => candidate === dtype);
}

/** Elements converted at a time; their bytes on both sides stay in a core's cache. */
const pieceElements = 1 << 17;

/**
 * Buffers of one view: its tensors are read one after the other. The typed arrays over them are made once: made for every piece they
 * would cost more than the conversion.
 */
class Scratch {
  readonly stored = new Uint8Array(pieceElements * storedDtypeBytes.f64);
  readonly cast = new Uint8Array(pieceElements * storedDtypeBytes.f64);
  readonly #stored16 = new Uint16Array(this.stored.buffer);
  readonly #stored32 = new Uint32Array(this.stored.buffer);
  readonly #cast16 = new Uint16Array(this.cast.buffer);
  readonly #cast32 = new Uint32Array(this.cast.buffer);
  readonly #storedHalf = new Float16Array(this.stored.buffer);
  readonly #storedSingle = new Float32Array(this.stored.buffer);
  readonly #castHalf = new Float16Array(this.cast.buffer);
  readonly #castSingle = new Float32Array(this.cast.buffer);
  /** Between bf16 and f16, which have no way to each other but through f32. */
  readonly #single = new Float32Array(pieceElements);
  readonly #single32 = new Uint32Array(this.#single.buffer);

  /** Converts the first `count` elements of `stored` into `cast`. */
  convert(count: number, { from, to }: { from: CastDtype; to: CastDtype }): void {
    // bf16 on bits, f16 by loops over its own arrays: an order of magnitude faster than through arrays of numbers.
    if (from === "bf16" && to === "f32") widenBf16(count, this.#stored16, this.#cast32);
    else if (from === "f32" && to === "bf16") narrowToBf16(count, this.#stored32, this.#cast16);
    else if (from === "f32" && to === "f16") narrowToHalf(count, this.#storedSingle, this.#castHalf);
    else if (from === "f16" && to === "f32") widenHalf(count, this.#storedHalf, this.#castSingle);
    else if (from === "bf16" && to === "f16") {
      widenBf16(count, this.#stored16, this.#single32);
      narrowToHalf(count, this.#single, this.#castHalf);
    } else if (from === "f16" && to === "bf16") {
      widenHalf(count, this.#storedHalf, this.#single);
      narrowToBf16(count, this.#single32, this.#cast16);
    } else {
      const bytes = this.stored.subarray(0, count * storedDtypeBytes[from]);
      this.cast.set(encodeValues(to, decodeValues(from, bytes)));
    }
  }
}

/** The tensors of `source` with all floats as `dtype`. Disposing the view disposes the source. */
export function castView(source: TensorSource, dtype: CastDtype): TensorSource {
  let scratch: Scratch | undefined;
  const scratchOf = (): Scratch => (scratch ??= new Scratch());
  const table = new Map<string, StoredTensor>();
  for (const name of source.names()) {
    const { dtype: stored, shape, byteLength } = source.info(name);
    const readStored: RangeReader = (into, byteOffset) => source.readInto(name, into, byteOffset);
    if (stored === dtype || !isCastable(stored)) {
      table.set(name, { dtype: stored, shape, byteLength, readRange: readStored });
    } else {
      const readRange = castReader(readStored, { from: stored, to: dtype, scratchOf });
      table.set(name, { dtype, shape, byteLength: storedByteLength(dtype, shape), readRange });
    }
  }
  return tensorTable(source.path, table, { metadata: source.metadata, release: () => source.dispose() });
}

function castReader(
  read: RangeReader,
  { from, to, scratchOf }: { from: CastDtype; to: CastDtype; scratchOf: () => Scratch },
): RangeReader {
  const fromBytes = storedDtypeBytes[from];
  const toBytes = storedDtypeBytes[to];
  return (into, byteOffset) => {
    const scratch = scratchOf();
    const end = byteOffset + into.byteLength;
    for (let at = byteOffset; at < end;) {
      // A range may begin and end inside an element.
      const first = Math.floor(at / toBytes);
      const last = Math.min(first + pieceElements, Math.ceil(end / toBytes));
      read(scratch.stored.subarray(0, (last - first) * fromBytes), first * fromBytes);
      scratch.convert(last - first, { from, to });
      const pieceEnd = Math.min(end, last * toBytes);
      into.set(scratch.cast.subarray(at - first * toBytes, pieceEnd - first * toBytes), at - byteOffset);
      at = pieceEnd;
    }
  };
}

function widenHalf(count: number, values: Float16Array, out: Float32Array): void {
  for (let i = 0; i < count; i++) out[i] = values[i];
}

function narrowToHalf(count: number, values: Float32Array, out: Float16Array): void {
  for (let i = 0; i < count; i++) out[i] = values[i];
}

function widenBf16(count: number, bits: Uint16Array, out: Uint32Array): void {
  for (let i = 0; i < count; i++) out[i] = bits[i] << 16;
}

/** Rounds to nearest even; NaN stays NaN. */
function narrowToBf16(count: number, bits: Uint32Array, out: Uint16Array): void {
  for (let i = 0; i < count; i++) {
    const value = bits[i];
    const isNan = (value & 0x7fffffff) > 0x7f800000;
    out[i] = isNan ? (value >>> 16) | 0x40 : (value + 0x7fff + ((value >>> 16) & 1)) >>> 16;
  }
}
