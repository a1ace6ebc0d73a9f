/**
 * Tensor maps: how a matrix lies in memory and how its tiles lie in shared memory, as the tensor copies of Hopper and later read them.
 * Source: cuTensorMapEncodeTiled of cuda.h; the driver alone knows the 128 bytes that it gives.
 */
import { dtypeBytes } from "../../base/index.ts";
import type { TiledMatrix } from "./launcher.ts";
import { NativeWords } from "./native.ts";
import type { CudaSession } from "./session.ts";

const dataTypes = { u8: 0, bf16: 9 } as const;
const interleaveNone = 0;
const swizzle128Bytes = 3;
const promotion256Bytes = 3;
const outsideIsZero = 0;
const mapBytes = 128;
const mapAlignment = 64;
/** One line of the swizzle. */
const boxRowBytes = 128;

export class TileMapEncoder {
  readonly #session: CudaSession;
  readonly #map = new NativeWords((mapBytes + mapAlignment) / 8);
  /** Extents (3 words), strides in bytes of the second and third (2), extents of a tile (three u32 in 2), element strides (the same). */
  readonly #words = new NativeWords(9);

  constructor(session: CudaSession) {
    this.#session = session;
  }

  /** The 128 bytes of the map, the caller's own. Throws DeviceError. */
  encode({ address, dtype, rows, columns, rowStride, tileRows, tileBoxes }: TiledMatrix): Uint8Array {
    const words = this.#words;
    const elementBytes = dtypeBytes(dtype);
    const boxColumns = boxRowBytes / elementBytes;
    // A third dimension of boxes, so that one copy brings several, each in a swizzle of its own.
    [boxColumns, rows, columns / boxColumns, elementBytes * rowStride, boxRowBytes].forEach((word, index) => {
      words.setWord(index, word);
    });
    words.u32.set([boxColumns, tileRows, tileBoxes], 10);
    words.u32.set([1, 1, 1], 14);
    const offset = -this.#map.address & (mapAlignment - 1);
    const status = this.#session.functions.cuTensorMapEncodeTiled(
      this.#map.address + offset,
      dataTypes[dtype],
      3,
      address,
      words.address,
      words.address + 3 * 8,
      words.address + 5 * 8,
      words.address + 7 * 8,
      interleaveNone,
      swizzle128Bytes,
      promotion256Bytes,
      outsideIsZero,
    );
    this.#session.check("cuTensorMapEncodeTiled", status);
    return this.#map.bytes.slice(offset, offset + mapBytes);
  }
}
