/** Whole numbers within bounds, written in decimal without leading zeros. */
import { choice, empty, literal, repeat, sequence } from "./grammar.ts";
import type { Expression, Range } from "./grammar.ts";
import { digit, nonZeroDigit } from "./json.ts";

/** Integers from `min` to `max`, either of which may be missing; min <= max. */
export function integerRange(min: number | undefined, max: number | undefined): Expression {
  const options: Expression[] = [];
  const low = min ?? -Infinity;
  const high = max ?? Infinity;
  if (high >= 0) options.push(magnitudes(Math.max(low, 0), high));
  if (low < 0) options.push(sequence(literal("-"), magnitudes(Math.max(1, -high), -low)));
  return choice(...options);
}

/** Digits of the numbers from `low` >= 0 to `high`, which may be infinite. */
function magnitudes(low: number, high: number): Expression {
  const first = String(low);
  const options: Expression[] = [];
  const lastLength = high === Infinity ? first.length : String(high).length;
  for (let length = first.length; length <= lastLength; length++) {
    const begin = length === first.length ? first : `1${"0".repeat(length - 1)}`;
    const end = high !== Infinity && length === lastLength ? String(high) : "9".repeat(length);
    options.push(between(begin, end));
  }
  if (high === Infinity) options.push(sequence(nonZeroDigit, repeat(digit, lastLength)));
  return choice(...options);
}

/** Digit strings of equal length from `low` to `high`. */
function between(low: string, high: string): Expression {
  if (low === "") return empty;
  const first = low.charCodeAt(0);
  const last = high.charCodeAt(0);
  const lowRest = low.slice(1);
  const highRest = high.slice(1);
  if (first === last) return sequence(digits([first, first]), between(lowRest, highRest));
  const nines = "9".repeat(lowRest.length);
  const zeros = "0".repeat(lowRest.length);
  const options = [
    sequence(digits([first, first]), between(lowRest, nines)),
    sequence(digits([last, last]), between(zeros, highRest)),
  ];
  if (first + 1 < last)
    options.push(sequence(digits([first + 1, last - 1]), repeat(digit, lowRest.length, lowRest.length)));
  return choice(...options);
}

function digits(range: Range): Expression {
  return { kind: "bytes", ranges: [range] };
}
