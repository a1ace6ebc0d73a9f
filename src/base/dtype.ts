/**
 * Element types, their sizes and their codes. The codes are part of the C interface (`nt_dtype`): never renumber them.
 */
export const dtypes = {
  f32: { code: 0, bytes: 4 },
  bf16: { code: 1, bytes: 2 },
  f16: { code: 2, bytes: 2 },
  f64: { code: 3, bytes: 8 },
  i32: { code: 4, bytes: 4 },
  i64: { code: 5, bytes: 8 },
  u8: { code: 6, bytes: 1 },
} as const satisfies Record<string, { code: number; bytes: number }>;

export type Dtype = keyof typeof dtypes;
/** Element types that values flow in. */
export type FloatDtype = "f32" | "bf16" | "f16" | "f64";

export function dtypeBytes(dtype: Dtype): number {
  return dtypes[dtype].bytes;
}

const floatBits = new Float32Array(1);
const integerBits = new Uint32Array(floatBits.buffer);

/** The bf16 bits of `value`, rounded to nearest even; NaN stays NaN. */
export function toBf16Bits(value: number): number {
  floatBits[0] = value;
  const bits = integerBits[0];
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40;
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

/** The value of bf16 bits. */
export function fromBf16Bits(bits: number): number {
  integerBits[0] = bits << 16;
  return floatBits[0];
}

/** `value` rounded to the nearest representable number of `dtype`. */
export function roundTo(dtype: FloatDtype, value: number): number {
  switch (dtype) {
    case "f64":
      return value;
    case "f32":
      return Math.fround(value);
    case "bf16":
      return fromBf16Bits(toBf16Bits(value));
    case "f16":
      return Math.f16round(value);
  }
}

/** Machine epsilon: the gap between 1 and the next number. */
export const epsilons: Readonly<Record<FloatDtype, number>> = {
  f64: 2 ** -52,
  f32: 2 ** -23,
  bf16: 2 ** -7,
  f16: 2 ** -10,
};

/** A typed array over `bytes` with the dtype's elements; bf16 as its 16-bit patterns. */
export function viewAs(dtype: Dtype, bytes: Uint8Array): NumericArray {
  const { buffer, byteOffset, byteLength } = bytes;
  const length = byteLength / dtypeBytes(dtype);
  switch (dtype) {
    case "f32":
      return new Float32Array(buffer, byteOffset, length);
    case "bf16":
      return new Uint16Array(buffer, byteOffset, length);
    case "f16":
      return new Float16Array(buffer, byteOffset, length);
    case "f64":
      return new Float64Array(buffer, byteOffset, length);
    case "i32":
      return new Int32Array(buffer, byteOffset, length);
    case "i64":
      return new BigInt64Array(buffer, byteOffset, length);
    case "u8":
      return bytes;
  }
}

export type NumericArray =
  | Float32Array
  | Uint16Array
  | Float16Array
  | Float64Array
  | Int32Array
  | BigInt64Array
  | Uint8Array;

/** Bytes holding `values` rounded to `dtype`. */
export function encodeValues(dtype: Dtype, values: ArrayLike<number>): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(values.length * dtypeBytes(dtype));
  const view = viewAs(dtype, bytes);
  if (view instanceof BigInt64Array) for (let i = 0; i < values.length; i++) view[i] = BigInt(values[i]);
  else if (dtype === "bf16") for (let i = 0; i < values.length; i++) view[i] = toBf16Bits(values[i]);
  else view.set(values);
  return bytes;
}

/** The values in `bytes` as float64 numbers. */
export function decodeValues(dtype: Dtype, bytes: Uint8Array): Float64Array<ArrayBuffer> {
  const view = viewAs(dtype, aligned(bytes, dtypeBytes(dtype)));
  const out = new Float64Array(view.length);
  if (view instanceof BigInt64Array) for (let i = 0; i < out.length; i++) out[i] = Number(view[i]);
  else if (dtype === "bf16") for (let i = 0; i < out.length; i++) out[i] = fromBf16Bits(view[i]);
  else out.set(view);
  return out;
}

function aligned(bytes: Uint8Array, alignment: number): Uint8Array {
  return bytes.byteOffset % alignment === 0 ? bytes : bytes.slice();
}
