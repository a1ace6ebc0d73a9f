import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { wordPattern } from "./characterClasses.ts";
import { wordEnd } from "./words.ts";

function wordsByScan(text: string): string[] {
  const bytes = Buffer.from(text, "utf8");
  const words: string[] = [];
  for (let start = 0; start < bytes.length;) {
    const end = wordEnd(bytes, start, bytes.length);
    words.push(bytes.toString("utf8", start, end));
    start = end;
  }
  return words;
}

/** The same words by the regular expression that tokenizer.json carries. */
function wordsByPattern(text: string): string[] {
  return text.match(new RegExp(wordPattern, "gu")) ?? [];
}

describe("wordEnd", () => {
  it("cuts digits singly, keeps whitespace, and leaves one space to the word after it", () => {
    const code = "if (x10 ==  y) {\n\n    return 'a b';\t\t\n}  7";
    const words = "if| (|x|1|0| ==| | y|)| {\n\n|   | return| '|a| b|';|\t\t\n|}|  |7";
    expect(wordsByScan(code)).toEqual(words.split("|"));
    expect(wordsByScan("don't 日本語とkana、")).toEqual(["don", "'t", " 日本語と", "kana", "、"]);
  });

  it("agrees with the pattern on every code point between letters, spaces and digits", () => {
    for (let first = 0; first < 0x110000; first += 256) {
      if (first >= 0xd800 && first < 0xe000) continue;
      // Above the assigned planes one block in sixteen will do.
      if (first > 0x40000 && first % 4096 !== 0) continue;
      let text = "";
      for (let codePoint = first; codePoint < first + 256; codePoint++) {
        const character = String.fromCodePoint(codePoint);
        text += `a${character}b ${character} 1${character}`;
      }
      expect(wordsByScan(text)).toEqual(wordsByPattern(text));
    }
  });

  it("agrees with the pattern on any mix", () => {
    const part = fc.oneof(
      fc.constantFrom(
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "\u3000",
        "\u2028",
        "a",
        "é",
        "語",
        "ん",
        "7",
        "٣",
        ".",
        "{",
        "😀",
      ),
      fc.string({ unit: "binary", maxLength: 3 }),
    );
    fc.assert(
      fc.property(fc.array(part, { maxLength: 30 }), (parts) => {
        const text = parts.join("").toWellFormed();
        expect(wordsByScan(text)).toEqual(wordsByPattern(text));
      }),
      { numRuns: 2000 },
    );
  });
});
