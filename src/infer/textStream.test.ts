import { describe, expect, it } from "vitest";
import type { StreamDecoder } from "../text/index.ts";
import { TextStream } from "./textStream.ts";

/** Each token is a character code. */
const characters: StreamDecoder = {
  push: (ids) => String.fromCodePoint(...(typeof ids === "number" ? [ids] : ids)),
  flush: () => "",
};

function stream(text: string, stops: readonly string[]): { pieces: string[]; isStopped: boolean } {
  const out = new TextStream(characters, stops);
  const pieces = Array.from(text, (character) => out.push(character.codePointAt(0) ?? 0));
  return { pieces: [...pieces, out.flush()], isStopped: out.isStopped };
}

describe("TextStream", () => {
  it("holds back what may become a stop string, and gives it when it did not", () => {
    const { pieces, isStopped } = stream("a END b", ["ENDING"]);
    expect(pieces.join("")).toBe("a END b");
    expect(pieces[2]).toBe("");
    expect(isStopped).toBe(false);
  });

  it("ends before a stop string wherever tokens cut it, and says nothing after", () => {
    const { pieces, isStopped } = stream("one\n\nQ: two", ["\n\nQ:"]);
    expect(pieces.join("")).toBe("one");
    expect(isStopped).toBe(true);
  });

  it("ends at the earliest of several, overlapping ones too", () => {
    expect(stream("xxabcab", ["cab", "bc"]).pieces.join("")).toBe("xxa");
    expect(stream("aaab", ["aab"]).pieces.join("")).toBe("a");
  });

  it("gives at the end what it still held", () => {
    expect(stream("the E", ["END"]).pieces.join("")).toBe("the E");
  });
});
