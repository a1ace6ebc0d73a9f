/**
 * Cuts valid UTF-8 into words by the rule of `wordPattern`, scanning bytes with a table instead of a regular expression.
 * Knows nothing of pieces. Invariant: for valid UTF-8 the words are exactly the matches of `wordPattern`, without gaps.
 */
import { basicPlaneClasses, characterClass, classAboveBasicPlane } from "./characterClasses.ts";

const { letter, digit, ideograph, symbol, newline, blank, space } = characterClass;
/** No character: the end of the bytes. */
const end = 7;
/** The class in the low four bits and the length in bytes above it. */
const endCode = end;
const asciiCodes = Uint8Array.from(basicPlaneClasses.subarray(0, 128), (value) => value | (1 << 4));

/** Class and length of the character at `position`: `class | lengthBytes << 4`. */
function characterAt(bytes: Uint8Array, position: number, limit: number): number {
  if (position >= limit) return endCode;
  const first = bytes[position];
  if (first < 0x80) return asciiCodes[first];
  return multibyteCharacterAt(bytes, position, first);
}

function multibyteCharacterAt(bytes: Uint8Array, position: number, first: number): number {
  const second = bytes[position + 1] & 0x3f;
  if (first < 0xe0) return basicPlaneClasses[((first & 0x1f) << 6) | second] | (2 << 4);
  const third = bytes[position + 2] & 0x3f;
  if (first < 0xf0) return basicPlaneClasses[((first & 0x0f) << 12) | (second << 6) | third] | (3 << 4);
  const fourth = bytes[position + 3] & 0x3f;
  return classAboveBasicPlane(((first & 0x07) << 18) | (second << 12) | (third << 6) | fourth) | (4 << 4);
}

/** The end of the run of characters of class `wanted` that starts at `position`. */
function runEnd(bytes: Uint8Array, position: number, limit: number, wanted: number): number {
  for (;;) {
    const code = characterAt(bytes, position, limit);
    if ((code & 15) !== wanted) return position;
    position += code >> 4;
  }
}

/**
 * The end of the word that starts at `start` in `bytes[0, limit)`.
 * `start` must be below `limit` and, like `limit`, the border of a character of valid UTF-8.
 */
export function wordEnd(bytes: Uint8Array, start: number, limit: number): number {
  const code = characterAt(bytes, start, limit);
  const next = start + (code >> 4);
  switch (code & 15) {
    case letter:
      return runEnd(bytes, next, limit, letter);
    case ideograph:
      return runEnd(bytes, next, limit, ideograph);
    case digit:
      return next;
    case symbol:
      if ((characterAt(bytes, next, limit) & 15) === letter) return runEnd(bytes, next, limit, letter);
      return symbolsEnd(bytes, next, limit);
    case space: {
      const following = characterAt(bytes, next, limit) & 15;
      if (following === letter || following === ideograph) return runEnd(bytes, next, limit, following);
      if (following === symbol) return symbolsEnd(bytes, next, limit);
      return blanksEnd(bytes, start, limit);
    }
    default:
      return blanksEnd(bytes, start, limit);
  }
}

function symbolsEnd(bytes: Uint8Array, position: number, limit: number): number {
  return runEnd(bytes, runEnd(bytes, position, limit, symbol), limit, newline);
}

/** The end of a word of whitespace: after its last newline, or before a space that belongs to the next word. */
function blanksEnd(bytes: Uint8Array, start: number, limit: number): number {
  let position = start;
  let afterNewline = -1;
  let lastIsSpace = false;
  let following: number;
  for (;;) {
    const code = characterAt(bytes, position, limit);
    following = code & 15;
    if (following !== space && following !== blank && following !== newline) break;
    position += code >> 4;
    lastIsSpace = following === space;
    if (following === newline) afterNewline = position;
  }
  if (afterNewline >= 0) return afterNewline;
  const isWordAfter = following !== digit && following !== end;
  return isWordAfter && lastIsSpace && position - 1 > start ? position - 1 : position;
}
