import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { lineRuns, linesOf } from "./lines.ts";
import { textPieces } from "./textFile.ts";

async function* cut(bytes: Uint8Array, sizes: readonly number[]): AsyncGenerator<Uint8Array> {
  let begin = 0;
  for (const size of [...sizes, bytes.length]) {
    if (begin < bytes.length) yield bytes.subarray(begin, begin + size);
    begin += size;
  }
}

const texts = fc
  .array(fc.constantFrom("a", "\n", "\r\n", "é", "日本", "\n\n", " ", "😀"), { maxLength: 80 })
  .map((parts) => parts.join(""));
const cuts = fc.array(fc.integer({ min: 1, max: 20 }), { maxLength: 20 });

describe("lineRuns", () => {
  it("gives every line once, with its number, however the stream is cut", async () => {
    await fc.assert(
      fc.asyncProperty(texts, cuts, fc.integer({ min: 1, max: 30 }), async (text, sizes, targetBytes) => {
        const bytes = Buffer.from(text);
        const lines: [number, string][] = [];
        for await (const run of lineRuns("file", cut(bytes, sizes), { targetBytes })) {
          for (const { bytes, line } of linesOf(run)) lines.push([line, Buffer.from(bytes).toString()]);
        }
        const expected = text
          .split("\n")
          .map((line, i): [number, string] => [i + 1, line.replace(/\r$/, "")]);
        if (text.endsWith("\n") || text === "") expected.pop();
        expect(lines).toEqual(expected);
      }),
    );
  });

  it("names a line that is too long", async () => {
    const bytes = Buffer.from(`short\n${"x".repeat(100)}\n`);
    const runs = lineRuns("big.jsonl", cut(bytes, [20, 20, 20, 20]), { targetBytes: 1, maxLineBytes: 32 });
    await expect(drain(runs)).rejects.toThrow(
      "expected lines of at most 32 B in big.jsonl, got a longer one at line 2",
    );
  });
});

async function drain(runs: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of runs);
}

describe("textPieces", () => {
  it("cuts whole characters, at line ends where there are any, the same however the stream is cut", async () => {
    await fc.assert(
      fc.asyncProperty(
        texts,
        cuts,
        cuts,
        fc.integer({ min: 4, max: 40 }),
        async (text, sizes, others, pieceBytes) => {
          const bytes = Buffer.from(text);
          const pieces = async (by: readonly number[]): Promise<string[]> => {
            const found: string[] = [];
            let ends = 0;
            for await (const piece of textPieces(cut(bytes, by), pieceBytes)) {
              expect(piece.startsDocument).toBe(found.length === 0);
              if (piece.endsDocument) ends++;
              expect(piece.bytes.length).toBeLessThanOrEqual(pieceBytes);
              found.push(Buffer.from(piece.bytes).toString());
            }
            expect(ends).toBe(text === "" ? 0 : 1);
            return found;
          };
          const found = await pieces(sizes);
          expect(found.join("")).toBe(text);
          expect(found.join("")).not.toContain("\uFFFD");
          expect(await pieces(others)).toEqual(found);
          for (const piece of found.slice(0, -1))
            if (piece.includes("\n")) expect(piece.endsWith("\n")).toBe(true);
        },
      ),
    );
  });
});
