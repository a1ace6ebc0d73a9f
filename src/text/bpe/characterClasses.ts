/**
 * The character classes by which text is cut into words before byte-pair encoding, and the same rule as a regular expression.
 * Knows nothing of bytes, pieces or files. Invariants: every code point has exactly one class; the ranges are written out
 * instead of taken from Unicode properties, because those differ between V8, Oniguruma and Rust by Unicode version, and a
 * tokenizer must cut the same way everywhere and for ever. Changing a range makes another tokenizer: `wordPattern` is saved in
 * tokenizer.json and compared on load.
 */

/** What a code point counts as; `letter` is everything that no range below names. */
export const characterClass = {
  letter: 0,
  digit: 1,
  /** Han and kana: written without spaces. */
  ideograph: 2,
  /** Punctuation, symbols, emoji and control characters. */
  symbol: 3,
  newline: 4,
  /** Whitespace that is neither a newline nor the plain space. */
  blank: 5,
  space: 6,
} as const;

type Range = readonly [first: number, last: number];

const newlineRanges: readonly Range[] = [
  [0x0a, 0x0a],
  [0x0d, 0x0d],
];

const blankRanges: readonly Range[] = [
  [0x09, 0x09],
  [0x0b, 0x0c],
  [0x85, 0x85],
  [0xa0, 0xa0],
  [0x1680, 0x1680],
  [0x2000, 0x200a],
  [0x2028, 0x2029],
  [0x202f, 0x202f],
  [0x205f, 0x205f],
  [0x3000, 0x3000],
];

/** The zeros of the decimal digits of Unicode's basic plane; nine more digits follow each. */
const digitZeros = [
  0x30, 0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xde6, 0xe50,
  0xed0, 0xf20, 0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90, 0x1b50, 0x1bb0, 0x1c40,
  0x1c50, 0xa620, 0xa8d0, 0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10,
];
const digitRanges: readonly Range[] = digitZeros.map((zero) => [zero, zero + 9]);

const ideographRanges: readonly Range[] = [
  [0x3005, 0x3007],
  [0x3040, 0x30ff],
  [0x31f0, 0x31ff],
  [0x3400, 0x4dbf],
  [0x4e00, 0x9fff],
  [0xf900, 0xfaff],
  [0xff66, 0xff9f],
  [0x20000, 0x3ffff],
];

const symbolRanges: readonly Range[] = [
  // ASCII and Latin-1: control characters and punctuation, without ª µ º and the letters.
  [0x00, 0x08],
  [0x0e, 0x1f],
  [0x21, 0x2f],
  [0x3a, 0x40],
  [0x5b, 0x60],
  [0x7b, 0x84],
  [0x86, 0x9f],
  [0xa1, 0xa9],
  [0xab, 0xb4],
  [0xb6, 0xb9],
  [0xbb, 0xbf],
  [0xd7, 0xd7],
  [0xf7, 0xf7],
  // Greek, Armenian, Hebrew, Arabic, Indic and South-East Asian punctuation.
  [0x37e, 0x37e],
  [0x387, 0x387],
  [0x55a, 0x55f],
  [0x589, 0x58a],
  [0x5be, 0x5be],
  [0x5c0, 0x5c0],
  [0x5c3, 0x5c3],
  [0x5f3, 0x5f4],
  [0x609, 0x60d],
  [0x61b, 0x61b],
  [0x61e, 0x61f],
  [0x66a, 0x66d],
  [0x6d4, 0x6d4],
  [0x964, 0x965],
  [0xe3f, 0xe3f],
  [0xe4f, 0xe4f],
  [0xe5a, 0xe5b],
  [0x104a, 0x104f],
  [0x1361, 0x1368],
  [0x17d4, 0x17da],
  // General punctuation without the joiners U+200C and U+200D, which stand inside words; currency, arrows,
  // mathematics, boxes, dingbats; CJK and full-width punctuation; the byte order mark; emoji.
  [0x200e, 0x2027],
  [0x202a, 0x202e],
  [0x2030, 0x205e],
  [0x2060, 0x206f],
  [0x20a0, 0x20cf],
  [0x2100, 0x2bff],
  [0x2e00, 0x2e7f],
  [0x3001, 0x3004],
  [0x3008, 0x3020],
  [0x3030, 0x3030],
  [0x303d, 0x303f],
  [0xfe00, 0xfe1f],
  [0xfe30, 0xfe6f],
  [0xfeff, 0xfeff],
  [0xff01, 0xff0f],
  [0xff1a, 0xff20],
  [0xff3b, 0xff40],
  [0xff5b, 0xff65],
  [0xfff9, 0xffff],
  [0x1f000, 0x1faff],
];

const classRanges: readonly (readonly [number, readonly Range[]])[] = [
  [characterClass.digit, digitRanges],
  [characterClass.ideograph, ideographRanges],
  [characterClass.symbol, symbolRanges],
  [characterClass.newline, newlineRanges],
  [characterClass.blank, blankRanges],
  [characterClass.space, [[0x20, 0x20]]],
];

/** The class of each code point of the basic plane. */
export const basicPlaneClasses: Uint8Array = makeBasicPlane();

function makeBasicPlane(): Uint8Array {
  const classes = new Uint8Array(0x10000).fill(characterClass.letter);
  for (const [value, ranges] of classRanges) {
    for (const [first, last] of ranges) if (first < 0x10000) classes.fill(value, first, last + 1);
  }
  return classes;
}

/** The class of a code point above the basic plane. */
export function classAboveBasicPlane(codePoint: number): number {
  if (codePoint >= 0x20000 && codePoint <= 0x3ffff) return characterClass.ideograph;
  if (codePoint >= 0x1f000 && codePoint <= 0x1faff) return characterClass.symbol;
  return characterClass.letter;
}

/**
 * The words of a text as one regular expression that Oniguruma (Hugging Face's `tokenizers`) and JavaScript read alike.
 * In order: one digit; letters with at most one symbol or space before them; ideographs; symbols with the newlines after them;
 * blanks up to the last newline; blanks that leave the last space to the word after them; blanks. Between them they match every
 * character, so that a text is the concatenation of its words.
 */
export const wordPattern: string = makeWordPattern();

function makeWordPattern(): string {
  const digit = classBody(digitRanges);
  const ideograph = classBody(ideographRanges);
  const symbol = classBody(symbolRanges);
  const newline = classBody(newlineRanges);
  const blank = ` ${classBody(blankRanges)}`;
  const letter = `[^${digit}${ideograph}${symbol}${newline}${blank}]`;
  return [
    `[${digit}]`,
    `[${symbol} ]?${letter}+`,
    ` ?[${ideograph}]+`,
    ` ?[${symbol}]+[${newline}]*`,
    `[${blank}${newline}]*[${newline}]+`,
    `[${blank}]+(?= [^${blank}${newline}${digit}])`,
    `[${blank}]+`,
  ].join("|");
}

function classBody(ranges: readonly Range[]): string {
  return ranges
    .map(([first, last]) => (first === last ? literal(first) : `${literal(first)}-${literal(last)}`))
    .join("");
}

/** Oniguruma takes `\x85` for a byte and has no `\u{…}`: escapes for ASCII only, the character itself beyond. */
function literal(codePoint: number): string {
  const character = String.fromCodePoint(codePoint);
  if (codePoint < 0x20 || codePoint === 0x7f) return `\\x${codePoint.toString(16).padStart(2, "0")}`;
  return /[\\\]^[-]/.test(character) ? `\\${character}` : character;
}
