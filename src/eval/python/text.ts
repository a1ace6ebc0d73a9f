/**
 * The text functions of the reference harness's language where JavaScript's differ: what is whitespace, how long a text is, how
 * texts are ordered. Names follow Python's.
 */

// oxlint-disable-next-line no-control-regex -- U+001C-U+001F are whitespace to Python
const whitespace =
  "\\u0009-\\u000d\\u001c-\\u0020\\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const leading = new RegExp(`^[${whitespace}]+`, "u");
const trailing = new RegExp(`[${whitespace}]+$`, "u");
const runs = new RegExp(`[${whitespace}]+`, "u");

/** `str.strip()`: unlike `trim` it takes U+001C-U+001F and U+0085 and leaves U+FEFF. */
export function strip(text: string): string {
  return text.replace(leading, "").replace(trailing, "");
}

/** `str.split()` without arguments: the runs between whitespace. */
export function splitWords(text: string): string[] {
  return splitAtWhitespace(text).filter((word) => word !== "");
}

/** `re.split(r"\\s+", text)`: with an empty piece where whitespace begins or ends the text. */
export function splitAtWhitespace(text: string): string[] {
  return text.split(runs);
}

/** `len(str)`: code points, not UTF-16 units. */
export function length(text: string): number {
  let count = 0;
  // A surrogate pair is two units and one code point.
  for (let index = 0; index < text.length; index++) {
    const unit = text.charCodeAt(index);
    const isLowSurrogate = unit >= 0xdc00 && unit < 0xe000 && index > 0;
    const previous = isLowSurrogate ? text.charCodeAt(index - 1) : 0;
    if (!(previous >= 0xd800 && previous < 0xdc00)) count++;
  }
  return count;
}

/** `str.capitalize()`: the first letter up, all others down. */
export function capitalize(text: string): string {
  const [first = "", ...rest] = Array.from(text);
  return first.toUpperCase() + rest.join("").toLowerCase();
}

/** Orders by code points, as Python's `sorted` does: JavaScript orders by UTF-16 units. */
export function compareCodePoints(a: string, b: string): number {
  const [left, right] = [Array.from(a), Array.from(b)];
  for (let index = 0; index < Math.min(left.length, right.length); index++) {
    const difference = (left[index].codePointAt(0) ?? 0) - (right[index].codePointAt(0) ?? 0);
    if (difference !== 0) return difference;
  }
  return left.length - right.length;
}

/** UTF-8 bytes of a text. */
export function byteLength(text: string): number {
  return Buffer.byteLength(text, "utf8");
}
