/**
 * Regular expressions as grammars: what ECMAScript's syntax says about whole texts. What needs memory or looks around (backreferences,
 * lookaround, word boundaries) is refused by name.
 */
import { RequestError } from "../../base/index.ts";
import { characters, choice, complement, empty, repeat, sequence } from "./grammar.ts";
import type { Expression, Range } from "./grammar.ts";

const digits: readonly Range[] = [[0x30, 0x39]];
const wordCharacters: readonly Range[] = [
  [0x30, 0x39],
  [0x41, 0x5a],
  [0x5f, 0x5f],
  [0x61, 0x7a],
];
const spaces: readonly Range[] = [
  [0x09, 0x0d],
  [0x20, 0x20],
  [0xa0, 0xa0],
  [0x1680, 0x1680],
  [0x2000, 0x200a],
  [0x2028, 0x2029],
  [0x202f, 0x202f],
  [0x205f, 0x205f],
  [0x3000, 0x3000],
  [0xfeff, 0xfeff],
];
const lineEnds: readonly Range[] = [
  [0x0a, 0x0a],
  [0x0d, 0x0d],
  [0x2028, 0x2029],
];
const classes: Readonly<Record<string, readonly Range[]>> = {
  d: digits,
  D: complement(digits),
  w: wordCharacters,
  W: complement(wordCharacters),
  s: spaces,
  S: complement(spaces),
};
const controls: Readonly<Record<string, number>> = { n: 10, r: 13, t: 9, f: 12, v: 11, 0: 0 };
const mostCount = 10_000;

export interface RegexOptions {
  /** How one of these code points is written. Default: as UTF-8. */
  emit?: (ranges: readonly Range[]) => Expression;
  /** The pattern may match anywhere within the text, as JSON schema has it; by default it is the whole text. */
  isSearch?: boolean;
}

/** Throws RequestError. */
export function parseRegex(
  pattern: string,
  { emit = characters, isSearch = false }: RegexOptions = {},
): Expression {
  return new RegexParser(pattern, emit, isSearch).parse();
}

class RegexParser {
  readonly #pattern: string;
  readonly #characters: readonly string[];
  readonly #emit: (ranges: readonly Range[]) => Expression;
  readonly #isSearch: boolean;
  #at = 0;

  constructor(pattern: string, emit: (ranges: readonly Range[]) => Expression, isSearch: boolean) {
    this.#pattern = pattern;
    this.#characters = Array.from(pattern);
    this.#emit = emit;
    this.#isSearch = isSearch;
  }

  parse(): Expression {
    const options = [this.#outerAlternative()];
    while (this.#take("|")) options.push(this.#outerAlternative());
    if (this.#at < this.#characters.length) this.#refuse(`a '${this.#peek() ?? ""}' that stands alone`);
    return choice(...options);
  }

  #outerAlternative(): Expression {
    const anything = repeat(this.#emit([[0, 0x10ffff]]), 0);
    const beginsHere = this.#take("^");
    const body = this.#terms();
    const endsHere = this.#take("$");
    if (!this.#isSearch) return body;
    return sequence(beginsHere ? empty : anything, body, endsHere ? empty : anything);
  }

  #terms(): Expression {
    const parts: Expression[] = [];
    for (let next = this.#peek(); next !== undefined && next !== "|" && next !== ")"; next = this.#peek()) {
      if (next === "$") {
        const after = this.#characters[this.#at + 1];
        if (after === undefined || after === "|") break;
      }
      parts.push(this.#quantified(this.#atom()));
    }
    return sequence(...parts);
  }

  #quantified(body: Expression): Expression {
    let result = body;
    const next = this.#peek();
    if (next === "*" || next === "+" || next === "?") {
      this.#at++;
      result = next === "*" ? repeat(body, 0) : next === "+" ? repeat(body, 1) : repeat(body, 0, 1);
    } else if (next === "{") {
      const found = /^\{(\d+)(,(\d*))?\}/.exec(this.#characters.slice(this.#at).join(""));
      if (found === null) this.#refuse("a '{' that is no count");
      this.#at += found[0].length;
      const min = Number(found[1]);
      const max = found[2] === undefined ? min : found[3] === "" ? undefined : Number(found[3]);
      if (max !== undefined && max < min) this.#refuse(`the count ${found[0]}`);
      if (Math.max(min, max ?? 0) > mostCount) this.#refuse(`the count ${found[0]}, above ${mostCount}`);
      result = repeat(body, min, max);
    } else return body;
    // A lazy quantifier matches the same texts.
    this.#take("?");
    if (["*", "+", "?"].includes(this.#peek() ?? "")) this.#refuse("a repeated quantifier");
    return result;
  }

  #atom(): Expression {
    const next = this.#next();
    switch (next) {
      case "(":
        return this.#group();
      case "[":
        return this.#emit(this.#class());
      case ".":
        return this.#emit(complement(lineEnds));
      case "\\": {
        const ranges = this.#escape();
        return this.#emit(ranges);
      }
      case "^":
      case "$":
        return this.#refuse(`'${next}' within the pattern`);
      case "*":
      case "+":
      case "?":
      case "{":
        return this.#refuse(`'${next}' with nothing before it`);
      default:
        return this.#emit([pointRange(next)]);
    }
  }

  #group(): Expression {
    if (this.#take("?")) {
      const rest = this.#characters.slice(this.#at).join("");
      const opening = /^(:|<[A-Za-z_$][\w$]*>)/.exec(rest);
      if (opening === null) this.#refuse("lookaround or an unknown group");
      this.#at += opening[0].length;
    }
    const options = [this.#terms()];
    while (this.#take("|")) options.push(this.#terms());
    if (!this.#take(")")) this.#refuse("a group that does not end");
    return choice(...options);
  }

  #class(): Range[] {
    const isNegated = this.#take("^");
    const ranges: Range[] = [];
    while (!this.#take("]")) {
      if (this.#peek() === undefined) this.#refuse("a class that does not end");
      const first = this.#classMember();
      const isRange = this.#peek() === "-" && ![undefined, "]"].includes(this.#characters[this.#at + 1]);
      if (!isRange) {
        ranges.push(...first);
        continue;
      }
      this.#at++;
      const last = this.#classMember();
      const isPoints =
        first.length === 1 && last.length === 1 && first[0][0] === first[0][1] && last[0][0] === last[0][1];
      if (!isPoints || last[0][0] < first[0][0]) this.#refuse("a class with a range that is none");
      ranges.push([first[0][0], last[0][0]]);
    }
    return isNegated ? complement(ranges) : ranges;
  }

  #classMember(): readonly Range[] {
    const next = this.#next();
    if (next !== "\\") return [pointRange(next)];
    if (this.#take("b")) return [[8, 8]];
    return this.#escape();
  }

  #escape(): readonly Range[] {
    const next = this.#next();
    if (next in classes) return classes[next];
    if (next in controls && !(next === "0" && /\d/.test(this.#peek() ?? "")))
      return [[controls[next], controls[next]]];
    const rest = this.#characters.slice(this.#at).join("");
    const hex =
      next === "x"
        ? /^([0-9a-fA-F]{2})/.exec(rest)
        : next === "u"
          ? /^(?:([0-9a-fA-F]{4})|\{([0-9a-fA-F]{1,6})\})/.exec(rest)
          : null;
    if (hex !== null) {
      this.#at += hex[0].length;
      const point = Number.parseInt(hex[1] ?? hex[2], 16);
      if (point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff))
        this.#refuse(`\\${next}${hex[0]}, which is no character`);
      return [[point, point]];
    }
    if (/[A-Za-z0-9]/.test(next)) this.#refuse(`\\${next}`);
    return [pointRange(next)];
  }

  #peek(): string | undefined {
    return this.#characters[this.#at];
  }

  #next(): string {
    const next = this.#characters[this.#at++];
    if (next === undefined) this.#refuse("an end in the middle");
    return next;
  }

  #take(character: string): boolean {
    if (this.#peek() !== character) return false;
    this.#at++;
    return true;
  }

  #refuse(what: string): never {
    throw new RequestError(
      "constraint",
      `expected a regular expression over whole texts, got ${what} at character ${this.#at} of ${JSON.stringify(this.#pattern)}`,
    );
  }
}

function pointRange(character: string): Range {
  const point = character.codePointAt(0) ?? 0;
  return [point, point];
}
