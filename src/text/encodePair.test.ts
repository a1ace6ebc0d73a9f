import { describe, expect, it } from "vitest";
import { TokenizerError } from "../base/index.ts";
import { encodePair, pairEncoder } from "./encodePair.ts";
import { loadTokenizer } from "./loadTokenizer.ts";

const tokenizer = loadTokenizer(new URL("../../test/fixtures/tokenizer", import.meta.url).pathname);

describe("encodePair", () => {
  it("splits the joint encoding at the length of the context alone", () => {
    const pair = encodePair(tokenizer, "The quick brown", " fox");
    expect(tokenizer.decode([...pair.context, ...pair.continuation])).toBe("The quick brown fox");
    expect(tokenizer.decode(pair.continuation)).toBe(" fox");
  });

  it("counts whitespace at the context's end to the continuation, U+0085 and newlines too", () => {
    for (const space of [" ", "\n", " \n\u0085", "\u001c"]) {
      const pair = encodePair(tokenizer, `Answer:${space}`, "yes");
      expect(tokenizer.decode(pair.context)).toBe("Answer:");
      expect(tokenizer.decode(pair.continuation)).toBe(`${space}yes`);
    }
    // U+FEFF is whitespace to JavaScript alone.
    expect(tokenizer.decode(encodePair(tokenizer, "a\ufeff", "b").context)).toBe("a\ufeff");
  });

  it("gives the same for pairs that follow each other, whether they share the context or not", () => {
    const encode = pairEncoder(tokenizer);
    for (const [context, continuation] of [
      ["One", " a"],
      ["One", " b"],
      ["One ", "c"],
      ["Two", " a"],
      ["One", " a"],
      ["", "a"],
    ])
      expect(encode(context, continuation)).toEqual(encodePair(tokenizer, context, continuation));
  });

  it("puts the prefix token before a continuation without context", () => {
    const prefix = tokenizer.bosId ?? tokenizer.eosId;
    expect([...encodePair(tokenizer, "", "word").context]).toEqual([prefix]);
    const own = encodePair(tokenizer, "", Int32Array.of(prefix, 20, 21));
    expect([...own.context, ...own.continuation]).toEqual([prefix, 20, 21]);
    expect([...own.context]).toEqual([prefix]);
  });

  it("takes ids as they are", () => {
    const pair = encodePair(tokenizer, Int32Array.of(5, 6), Int32Array.of(7));
    expect([[...pair.context], [...pair.continuation]]).toEqual([[5, 6], [7]]);
  });

  it("refuses a continuation without tokens", () => {
    expect(() => encodePair(tokenizer, "text", "")).toThrow(TokenizerError);
  });
});
