/** Walking UTF-8 that may be broken. Source: Unicode 16.0, table 3-7, well-formed UTF-8 byte sequences. */

/** The length in bytes of the well-formed character at `position`, or 0 when there is none. */
export function characterLength(bytes: Uint8Array, position: number): number {
  const first = bytes[position];
  if (first < 0x80) return 1;
  const continues = (offset: number, low = 0x80, high = 0xbf): boolean =>
    position + offset < bytes.length && bytes[position + offset] >= low && bytes[position + offset] <= high;
  if (first < 0xc2) return 0;
  if (first < 0xe0) return continues(1) ? 2 : 0;
  if (first < 0xf0) {
    const low = first === 0xe0 ? 0xa0 : 0x80;
    const high = first === 0xed ? 0x9f : 0xbf;
    return continues(1, low, high) && continues(2) ? 3 : 0;
  }
  if (first > 0xf4) return 0;
  const low = first === 0xf0 ? 0x90 : 0x80;
  const high = first === 0xf4 ? 0x8f : 0xbf;
  return continues(1, low, high) && continues(2) && continues(3) ? 4 : 0;
}

/** The code point of the well-formed character of `length` bytes at `position`. */
export function codePointAt(bytes: Uint8Array, position: number, length: number): number {
  const first = bytes[position];
  if (length === 1) return first;
  let codePoint = first & (0xff >> (length + 1));
  for (let i = 1; i < length; i++) codePoint = (codePoint << 6) | (bytes[position + i] & 0x3f);
  return codePoint;
}

/** The length in bytes of a character of well-formed UTF-8 by its first byte. */
export function lengthFromFirstByte(first: number): number {
  if (first < 0x80) return 1;
  if (first < 0xe0) return 2;
  return first < 0xf0 ? 3 : 4;
}
