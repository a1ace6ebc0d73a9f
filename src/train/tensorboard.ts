/**
 * TensorBoard event files: TFRecord framing (length, masked CRC-32C, data, masked CRC-32C) round `tensorflow.Event` messages with
 * one scalar each. The few protobuf fields are encoded by hand (tensorflow/core/util/event.proto, framework/summary.proto).
 */
import { closeSync, fstatSync, openSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { makeFolder, withFileErrors, writeAll } from "../base/index.ts";

const crcTable = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0x82f63b78 : value >>> 1;
  return value;
});

/** CRC-32C (Castagnoli), masked as TFRecord wants it. */
export function maskedCrc(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = (crc >>> 8) ^ crcTable[(crc ^ byte) & 0xff];
  crc = (crc ^ 0xffffffff) >>> 0;
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}

function record(data: Uint8Array): Uint8Array {
  const framed = new Uint8Array(16 + data.length);
  const view = new DataView(framed.buffer);
  view.setBigUint64(0, BigInt(data.length), true);
  view.setUint32(8, maskedCrc(framed.subarray(0, 8)), true);
  framed.set(data, 12);
  view.setUint32(12 + data.length, maskedCrc(data), true);
  return framed;
}

function varint(value: number): number[] {
  const bytes: number[] = [];
  let rest = BigInt(value);
  while (rest > 127n) {
    bytes.push(Number(rest & 127n) | 128);
    rest >>= 7n;
  }
  bytes.push(Number(rest));
  return bytes;
}

const lengthDelimited = (field: number, data: ArrayLike<number>): number[] => [
  ...varint(field * 8 + 2),
  ...varint(data.length),
  ...Array.from(data),
];

function fixed(field: number, wireType: 1 | 5, value: number): number[] {
  const bytes = new Uint8Array(wireType === 1 ? 8 : 4);
  const view = new DataView(bytes.buffer);
  if (wireType === 1) view.setFloat64(0, value, true);
  else view.setFloat32(0, value, true);
  return [...varint(field * 8 + wireType), ...bytes];
}

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);

/** Appends scalars to a new event file in `folder`. */
export class TensorBoardWriter implements Disposable {
  readonly #descriptor: number;
  readonly #path: string;

  /** `startMs` names the file and stamps it. Throws FileError. */
  constructor(folder: string, startMs: number) {
    makeFolder("tensorboard", folder);
    this.#path = join(
      folder,
      `events.out.tfevents.${Math.floor(startMs / 1000)}.${hostname()}.${process.pid}`,
    );
    this.#descriptor = withFileErrors("tensorboard", "a writable file", this.#path, () =>
      openSync(this.#path, "a"),
    );
    if (fstatSync(this.#descriptor).size === 0) {
      this.#write([...fixed(1, 1, startMs / 1000), ...lengthDelimited(3, utf8("brain.Event:2"))]);
    }
  }

  /** Event { wall_time = 1, step = 2, summary = 5 { value = 1 { tag = 1, simple_value = 2 } } } */
  scalar(tag: string, value: number, { step, wallTimeMs }: { step: number; wallTimeMs: number }): void {
    const summaryValue = [...lengthDelimited(1, utf8(tag)), ...fixed(2, 5, value)];
    this.#write([
      ...fixed(1, 1, wallTimeMs / 1000),
      ...varint(2 * 8),
      ...varint(step),
      ...lengthDelimited(5, lengthDelimited(1, summaryValue)),
    ]);
  }

  #write(event: number[]): void {
    withFileErrors("tensorboard", "a writable file", this.#path, () =>
      writeAll(this.#descriptor, record(Uint8Array.from(event))),
    );
  }

  dispose(): void {
    closeSync(this.#descriptor);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
