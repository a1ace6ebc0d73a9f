/**
 * The fields of one Protocol Buffers message, in order. Knows nothing of what they mean, and of the wire format only what
 * SentencePiece's files use (varints, fixed 32 and 64 bits, bytes; groups are refused). Invariant: never reads past the end.
 * Source: Protocol Buffers, "Encoding".
 */

export interface ProtobufField {
  number: number;
  /** A varint (exact up to 2^53) or the bits of fixed-width fields; 0 for fields of bytes. */
  value: number;
  /** The bytes of a string, bytes or message field, a view of the file; undefined for others. */
  bytes: Uint8Array | undefined;
}

/** Calls `visit` with each field of `message`; gives false when the bytes are not a message. The field object is used again. */
export function readFields(message: Uint8Array, visit: (field: ProtobufField) => void): boolean {
  const field: ProtobufField = { number: 0, value: 0, bytes: undefined };
  let position = 0;
  let isWhole = true;
  const varint = (): number => {
    let value = 0;
    let scale = 1;
    for (let i = 0; i < 10; i++, scale *= 128) {
      if (position >= message.length) break;
      const byte = message[position++];
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
    }
    isWhole = false;
    return 0;
  };
  const take = (length: number): Uint8Array => {
    if (length > message.length - position) isWhole = false;
    const bytes = message.subarray(position, position + length);
    position += length;
    return bytes;
  };
  while (position < message.length) {
    const tag = varint();
    field.number = Math.floor(tag / 8);
    field.value = 0;
    field.bytes = undefined;
    const wireType = tag % 8;
    if (wireType === 0) field.value = varint();
    else if (wireType === 1) take(8);
    else if (wireType === 2) field.bytes = take(varint());
    else if (wireType === 5) field.value = bitsOf(take(4));
    else return false;
    if (!isWhole || field.number === 0) return false;
    visit(field);
  }
  return isWhole;
}

const floatBits = new Uint32Array(1);
const floatValue = new Float32Array(floatBits.buffer);

/** The float whose bits a fixed 32-bit field holds. */
export function floatOfBits(bits: number): number {
  floatBits[0] = bits;
  return floatValue[0];
}

function bitsOf(bytes: Uint8Array): number {
  if (bytes.length < 4) return 0;
  return (bytes[0] | (bytes[1] << 8) | (bytes[2] << 16) | (bytes[3] << 24)) >>> 0;
}
