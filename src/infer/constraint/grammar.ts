/**
 * What a text may be, as expressions over bytes with named rules, so that nesting of any depth can be said. Makers of grammars (regex.ts,
 * jsonSchema.ts) build these; automaton.ts runs them.
 */

/** An inclusive range of bytes or of code points. */
export type Range = readonly [number, number];

export type Expression =
  | { kind: "bytes"; ranges: readonly Range[] }
  | { kind: "sequence"; parts: readonly Expression[] }
  | { kind: "choice"; options: readonly Expression[] }
  /** max undefined: without end. */
  | { kind: "repeat"; body: Expression; min: number; max: number | undefined }
  | { kind: "rule"; name: string };

export interface Grammar {
  readonly root: Expression;
  readonly rules: ReadonlyMap<string, Expression>;
}

export const empty: Expression = { kind: "sequence", parts: [] };

export function sequence(...parts: readonly Expression[]): Expression {
  return { kind: "sequence", parts };
}

export function choice(...options: readonly Expression[]): Expression {
  return options.length === 1 ? options[0] : { kind: "choice", options };
}

export function repeat(body: Expression, min: number, max?: number): Expression {
  return { kind: "repeat", body, min, max };
}

export function optional(body: Expression): Expression {
  return repeat(body, 0, 1);
}

export function rule(name: string): Expression {
  return { kind: "rule", name };
}

/** The UTF-8 of a text. */
export function literal(text: string): Expression {
  return sequence(
    ...Array.from(new TextEncoder().encode(text), (byte): Expression => ({
      kind: "bytes",
      ranges: [[byte, byte]],
    })),
  );
}

const lastOfLength = [0x7f, 0x7ff, 0xffff, 0x10ffff];

/** One character of these code points, as UTF-8; surrogates are no characters. */
export function characters(ranges: readonly Range[]): Expression {
  const options = ranges
    .flatMap(withoutSurrogates)
    .flatMap(([low, high]) => splitByLength(low, high))
    .flatMap(([low, high]) => byteSequences(encode(low), encode(high)));
  return { kind: "choice", options: options.map((parts) => sequence(...parts.map(bytesIn))) };
}

function bytesIn(range: Range): Expression {
  return { kind: "bytes", ranges: [range] };
}

function withoutSurrogates([low, high]: Range): Range[] {
  const before: Range = [low, Math.min(high, 0xd7ff)];
  const after: Range = [Math.max(low, 0xe000), high];
  return [before, after].filter(([first, last]) => first <= last);
}

function splitByLength(low: number, high: number): Range[] {
  const parts: Range[] = [];
  let first = low;
  for (const last of lastOfLength) {
    if (first > high) break;
    if (first > last) continue;
    parts.push([first, Math.min(last, high)]);
    first = last + 1;
  }
  return parts;
}

function encode(codePoint: number): number[] {
  return Array.from(new TextEncoder().encode(String.fromCodePoint(codePoint)));
}

/** All byte strings from `low` to `high`, of equal length, as products of ranges. */
function byteSequences(low: readonly number[], high: readonly number[]): Range[][] {
  const [first, ...lowRest] = low;
  const [last, ...highRest] = high;
  if (lowRest.length === 0) return [[[first, last]]];
  if (first === last) return byteSequences(lowRest, highRest).map((rest) => [[first, first], ...rest]);
  const lowest = lowRest.map(() => 0x80);
  const highest = lowRest.map(() => 0xbf);
  const whole = lowRest.map((): Range => [0x80, 0xbf]);
  const isLowWhole = lowRest.every((byte) => byte === 0x80);
  const isHighWhole = highRest.every((byte) => byte === 0xbf);
  const begin = isLowWhole ? first : first + 1;
  const end = isHighWhole ? last : last - 1;
  const parts: Range[][] = [];
  if (!isLowWhole)
    parts.push(...byteSequences(lowRest, highest).map((rest): Range[] => [[first, first], ...rest]));
  if (begin <= end) parts.push([[begin, end], ...whole]);
  if (!isHighWhole)
    parts.push(...byteSequences(lowest, highRest).map((rest): Range[] => [[last, last], ...rest]));
  return parts;
}

/** The code points that are in none of the ranges. */
export function complement(ranges: readonly Range[]): Range[] {
  const sorted = ranges.toSorted((a, b) => a[0] - b[0]);
  const rest: Range[] = [];
  let next = 0;
  for (const [low, high] of sorted) {
    if (low > next) rest.push([next, low - 1]);
    next = Math.max(next, high + 1);
  }
  if (next <= 0x10ffff) rest.push([next, 0x10ffff]);
  return rest;
}
