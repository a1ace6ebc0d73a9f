/**
 * A cursor over bytes for headers that are read field by field (pickles, GGUF): moves forward through a small window, so that a header at the
 * start of a large file costs no more than itself. Little-endian. Lengths that a damaged file claims are checked against what is left
 * before anything is made.
 */
import { CheckpointError } from "../base/index.ts";
import type { ByteSource } from "./bytes.ts";

const windowBytes = 1 << 16;
/** Opcode lines (names of globals, decimal numbers) are short in any honest file. */
const longestLineBytes = 1 << 16;

export class ByteCursor {
  readonly path: string;
  readonly #source: ByteSource;
  #window = new Uint8Array(0);
  #view = new DataView(this.#window.buffer);
  #windowStart: number;
  /** Position within the window. */
  #at = 0;

  readonly #component: string;

  /** `component` is named in errors. */
  constructor(source: ByteSource, component: string) {
    this.path = source.path;
    this.#source = source;
    this.#windowStart = 0;
    this.#component = component;
  }

  /** Bytes after the cursor. */
  get left(): number {
    return this.#source.byteLength - this.position;
  }

  /** Position in the source. */
  get position(): number {
    return this.#windowStart + this.#at;
  }

  /** Makes the next `length` bytes lie in the window and steps over them; gives where they start. */
  #take(length: number): number {
    if (this.#at + length > this.#window.byteLength) this.#refill(length);
    const start = this.#at;
    this.#at += length;
    return start;
  }

  #refill(length: number): void {
    const { position, left } = this;
    if (length > left) throw this.cutShort();
    this.#window = new Uint8Array(Math.min(Math.max(length, windowBytes), left));
    this.#view = new DataView(this.#window.buffer);
    this.#source.readInto(this.#window, position);
    this.#windowStart = position;
    this.#at = 0;
  }

  cutShort(): CheckpointError {
    return new CheckpointError(this.#component, `expected all of ${this.path}, got its end too early`, {
      hint: "the file is cut short or damaged; download or save it again",
      fields: { path: this.path },
    });
  }

  u8(): number {
    const at = this.#take(1);
    return this.#view.getUint8(at);
  }

  u16(): number {
    const at = this.#take(2);
    return this.#view.getUint16(at, true);
  }

  u32(): number {
    const at = this.#take(4);
    return this.#view.getUint32(at, true);
  }

  i32(): number {
    const at = this.#take(4);
    return this.#view.getInt32(at, true);
  }

  i8(): number {
    const at = this.#take(1);
    return this.#view.getInt8(at);
  }

  i16(): number {
    const at = this.#take(2);
    return this.#view.getInt16(at, true);
  }

  f32(): number {
    const at = this.#take(4);
    return this.#view.getFloat32(at, true);
  }

  f64(): number {
    const at = this.#take(8);
    return this.#view.getFloat64(at, true);
  }

  i64(): number {
    const at = this.#take(8);
    return Number(this.#view.getBigInt64(at, true));
  }

  /** Beyond 2^53 the nearest number: compare, do not count with it. */
  u64(): number {
    const at = this.#take(8);
    return Number(this.#view.getBigUint64(at, true));
  }

  /** As pickles have floats. */
  f64BigEndian(): number {
    const at = this.#take(8);
    return this.#view.getFloat64(at, false);
  }

  bytes(length: number): Uint8Array<ArrayBuffer> {
    const start = this.#take(length);
    return this.#window.slice(start, start + length);
  }

  text(length: number): string {
    const start = this.#take(length);
    // Python writes lone surrogates too ("surrogatepass"); such a name matches no tensor, so replacing them is harmless.
    return new TextDecoder().decode(this.#window.subarray(start, start + length));
  }

  line(): string {
    const characters: number[] = [];
    for (let byte = this.u8(); byte !== 0x0a; byte = this.u8()) {
      if (characters.length >= longestLineBytes) throw this.cutShort();
      characters.push(byte);
    }
    return new TextDecoder().decode(Uint8Array.from(characters));
  }
}
