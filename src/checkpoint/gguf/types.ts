/**
 * GGML's element types: the plain ones, the block formats Q8_0 and Q4_0 (a half-precision scale and 32 integers; ggml-common.h,
 * ggml-quants.c), and the names of the rest, to refuse them by.
 */
import type { RangeReader } from "../bytes.ts";
import type { StoredDtype } from "../source.ts";

export interface GgmlType {
  readonly name: string;
  readonly blockElements: number;
  readonly blockBytes: number;
  /** What a reader is given: the type itself, or f32 for block formats. */
  readonly dtype: StoredDtype;
  /** Writes a block's values. */
  readonly dequantise?: (block: DataView, out: Float32Array) => void;
}

const blockElements = 32;

function dequantiseQ8(block: DataView, out: Float32Array): void {
  const scale = block.getFloat16(0, true);
  for (let i = 0; i < blockElements; i++) out[i] = scale * block.getInt8(2 + i);
}

/** Low halves of the bytes are the first sixteen values, high halves the rest; 8 stands for zero. */
function dequantiseQ4(block: DataView, out: Float32Array): void {
  const scale = block.getFloat16(0, true);
  for (let i = 0; i < blockElements / 2; i++) {
    const pair = block.getUint8(2 + i);
    out[i] = scale * ((pair & 15) - 8);
    out[i + blockElements / 2] = scale * ((pair >> 4) - 8);
  }
}

function plain(name: string, dtype: StoredDtype, blockBytes: number): GgmlType {
  return { name, blockElements: 1, blockBytes, dtype };
}

/** Types by number. Those without a dtype are known by name only. */
export const ggmlTypes: ReadonlyMap<number, GgmlType | { readonly name: string }> = new Map<
  number,
  GgmlType | { readonly name: string }
>([
  [0, plain("F32", "f32", 4)],
  [1, plain("F16", "f16", 2)],
  [2, { name: "Q4_0", blockElements, blockBytes: 18, dtype: "f32", dequantise: dequantiseQ4 }],
  [3, { name: "Q4_1" }],
  [6, { name: "Q5_0" }],
  [7, { name: "Q5_1" }],
  [8, { name: "Q8_0", blockElements, blockBytes: 34, dtype: "f32", dequantise: dequantiseQ8 }],
  [9, { name: "Q8_1" }],
  [10, { name: "Q2_K" }],
  [11, { name: "Q3_K" }],
  [12, { name: "Q4_K" }],
  [13, { name: "Q5_K" }],
  [14, { name: "Q6_K" }],
  [15, { name: "Q8_K" }],
  [16, { name: "IQ2_XXS" }],
  [17, { name: "IQ2_XS" }],
  [18, { name: "IQ3_XXS" }],
  [19, { name: "IQ1_S" }],
  [20, { name: "IQ4_NL" }],
  [21, { name: "IQ3_S" }],
  [22, { name: "IQ2_S" }],
  [23, { name: "IQ4_XS" }],
  [24, plain("I8", "i8", 1)],
  [25, plain("I16", "i16", 2)],
  [26, plain("I32", "i32", 4)],
  [27, plain("I64", "i64", 8)],
  [28, plain("F64", "f64", 8)],
  [29, { name: "IQ1_M" }],
  [30, plain("BF16", "bf16", 2)],
  [34, { name: "TQ1_0" }],
  [35, { name: "TQ2_0" }],
  [39, { name: "MXFP4" }],
]);

/** Blocks converted at a time. */
const pieceBlocks = 1 << 15;

/** Reads any range of the f32 values behind blocks. */
export function dequantisedReader(read: RangeReader, { blockBytes, dequantise }: GgmlType): RangeReader {
  const outBytes = blockElements * 4;
  return (into, byteOffset) => {
    const end = byteOffset + into.byteLength;
    for (let at = byteOffset; at < end;) {
      const first = Math.floor(at / outBytes);
      const last = Math.min(first + pieceBlocks, Math.ceil(end / outBytes));
      const stored = new Uint8Array((last - first) * blockBytes);
      read(stored, first * blockBytes);
      const values = new Float32Array((last - first) * blockElements);
      for (let i = 0; i < last - first; i++) {
        const block = new DataView(stored.buffer, i * blockBytes, blockBytes);
        dequantise?.(block, values.subarray(i * blockElements, (i + 1) * blockElements));
      }
      const piece = new Uint8Array(values.buffer).subarray(
        at - first * outBytes,
        Math.min(end, last * outBytes) - first * outBytes,
      );
      into.set(piece, at - byteOffset);
      at += piece.byteLength;
    }
  };
}
