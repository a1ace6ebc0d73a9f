import {
  closeSync,
  ftruncateSync,
  openSync,
  readdirSync,
  readFileSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { fixturePath, Scratch } from "../../../test/data/scratch.ts";
import { dtypeForVocabulary, type WrittenDtype } from "./format.ts";
import { MegatronReader } from "./reader.ts";
import { expectTokenizer, readDocumentBytes, readStatistics } from "./statistics.ts";
import { MegatronWriter } from "./writer.ts";

const known = { vocabSize: 65_500, eosId: 2, tokenizerSha256: null, numEmptyDocuments: 0 };
/** The documents of the fixtures, as in the generator. */
const fixtures: { name: string; dtype: WrittenDtype; documents: number[][] }[] = [
  {
    name: "tokens-uint16",
    dtype: "uint16",
    documents: [
      [5, 6, 7, 2],
      [65_499, 0, 2],
      [1, 2],
      [...Array<number>(300).fill(9), 2],
    ],
  },
  {
    name: "tokens-int32",
    dtype: "int32",
    documents: [
      [255_999, 3],
      [1, 2, 3],
      [...Array<number>(70).fill(70_000), 3],
    ],
  },
];

function write(prefix: string, dtype: WrittenDtype, documents: readonly number[][]): void {
  using writer = new MegatronWriter(prefix, dtype);
  for (const document of documents) writer.addDocument(document, document.length);
  writer.finish(known);
}

describe("Megatron files", () => {
  it("are written byte for byte as the format's description packs them", () => {
    using scratch = new Scratch();
    for (const { name, dtype, documents } of fixtures) {
      const prefix = scratch.path(name);
      write(prefix, dtype, documents);
      for (const ending of [".bin", ".idx"]) {
        expect(readFileSync(prefix + ending)).toEqual(readFileSync(fixturePath(name + ending)));
      }
    }
  });

  it("are read as they were packed, from memory and from the file", () => {
    for (const residentBytes of [0, 1 << 20]) {
      for (const { name, dtype, documents } of fixtures) {
        using reader = new MegatronReader(fixturePath(name), { residentBytes });
        expect(reader.dtype).toBe(dtype);
        expect(documents.map((_, i) => [...reader.sequence(i)])).toEqual(documents);
        const middle = new Int32Array(4);
        reader.read(0, 1, 1, middle, 2);
        expect([...middle]).toEqual([0, 0, documents[0][1], 0]);
      }
      using sentences = new MegatronReader(fixturePath("tokens-sentences"), { residentBytes });
      expect(Array.from({ length: 4 }, (_, i) => [...sentences.sequence(i)])).toEqual([
        [1, 2],
        [],
        [3],
        [4, 5, 6],
      ]);
    }
  });

  it("come back as they were written, whatever they hold", () => {
    using scratch = new Scratch();
    const documents = fc.array(
      fc.array(fc.integer({ min: 0, max: 65_535 }), { minLength: 1, maxLength: 40 }),
      {
        minLength: 1,
      },
    );
    fc.assert(
      fc.property(documents, fc.constantFrom<WrittenDtype>("uint16", "int32"), (written, dtype) => {
        write(scratch.path("any"), dtype, written);
        using reader = new MegatronReader(scratch.path("any"));
        expect(written.map((_, i) => [...reader.sequence(i)])).toEqual(written);
      }),
      { numRuns: 30 },
    );
  });

  it("hold documents of several parts and larger than the writer's buffer", () => {
    using scratch = new Scratch();
    const large = Int32Array.from({ length: 700_000 }, (_, i) => i % 50_000);
    {
      using writer = new MegatronWriter(scratch.path("parts"), "uint16");
      writer.addPart(large.subarray(0, 300_000));
      writer.addPart(large.subarray(300_000));
      writer.endDocument(123);
      writer.endDocument(0);
      writer.addDocument([1, 2], 5);
      writer.finish(known);
    }
    using reader = new MegatronReader(scratch.path("parts"), { residentBytes: 0 });
    expect([...reader.lengths]).toEqual([700_000, 2]);
    expect(Buffer.compare(new Uint8Array(reader.sequence(0).buffer), new Uint8Array(large.buffer))).toBe(0);
    expect([...(readDocumentBytes(scratch.path("parts"), 2) ?? [])]).toEqual([123, 5]);
    expect(readStatistics(scratch.path("parts"))).toMatchObject({
      numTokens: 700_002,
      textBytes: 128,
      numDocuments: 2,
    });
  });

  it("may be larger than 4 GiB", () => {
    using scratch = new Scratch();
    const prefix = scratch.path("huge");
    write(prefix, "int32", [[1, 2, 3]]);
    // A sparse file: the second document ends just below 4.5 GiB.
    const position = 4.5 * 2 ** 30;
    const index = Buffer.concat([
      readFileSync(`${prefix}.idx`).subarray(0, 34),
      Buffer.alloc(2 * 12 + 3 * 8),
    ]);
    index.writeBigUInt64LE(2n, 18);
    index.writeBigUInt64LE(3n, 26);
    index.writeInt32LE(3, 34);
    index.writeInt32LE(2, 38);
    index.writeBigInt64LE(BigInt(position), 50);
    writeFileSync(`${prefix}.idx`, index);
    const bin = openSync(`${prefix}.bin`, "r+");
    writeSync(bin, Int32Array.from([70_001, 70_002]), 0, 8, position);
    closeSync(bin);
    using reader = new MegatronReader(prefix);
    expect([...reader.sequence(1)]).toEqual([70_001, 70_002]);
  });

  it("are uint16 below 65,500 ids, else int32", () => {
    expect([257, 65_499, 65_500, 256_000].map(dtypeForVocabulary)).toEqual([
      "uint16",
      "uint16",
      "int32",
      "int32",
    ]);
  });

  it("leave nothing behind when they are not finished", () => {
    using scratch = new Scratch();
    {
      using writer = new MegatronWriter(scratch.path("half"), "uint16");
      writer.addDocument([1], 1);
    }
    expect(readdirSync(scratch.folder)).toEqual([]);
  });

  it("know their tokenizer", () => {
    using scratch = new Scratch();
    {
      using writer = new MegatronWriter(scratch.path("known"), "uint16");
      writer.addDocument([1], 1);
      writer.finish({ ...known, tokenizerSha256: "aa".repeat(32) });
    }
    expect(() => expectTokenizer(scratch.path("known"), "aa".repeat(32))).not.toThrow();
    expect(() => expectTokenizer(scratch.path("known"), "bb".repeat(32))).toThrow(
      /expected tokens of tokenizer bbbbbbbbbbbb in .*known\.bin, got those of aaaaaaaaaaaa/,
    );
    expect(() => expectTokenizer(fixturePath("tokens-int32"), "bb".repeat(32))).not.toThrow();
  });
});

describe("damaged Megatron files", () => {
  /** A data set of two documents whose index `damage` changes. */
  function damaged(scratch: Scratch, damage: (index: Buffer) => Buffer): string {
    const prefix = scratch.path("damaged");
    write(prefix, "uint16", [[1, 2], [3]]);
    writeFileSync(`${prefix}.idx`, damage(readFileSync(`${prefix}.idx`)));
    return prefix;
  }
  const edit = (change: (index: Buffer) => void) => (index: Buffer) => {
    change(index);
    return index;
  };

  it.each<[string, (index: Buffer) => Buffer, RegExp]>([
    [
      "wrong magic",
      edit((index) => index.write("PK", 0)),
      /expected an index that begins with MMIDIDX at .*damaged\.idx, got "PK/,
    ],
    [
      "another version",
      edit((index) => index.writeUInt8(2, 9)),
      /expected index version 1 in .*damaged\.idx, got 2/,
    ],
    ["a float dtype", edit((index) => index.writeUInt8(7, 17)), /expected an integer dtype code .* got 7/],
    [
      "truncated in the header",
      (index) => index.subarray(0, 20),
      /expected an index of 34 bytes or more .* got 20/,
    ],
    [
      "truncated in the arrays",
      (index) => index.subarray(0, 60),
      /expected 82 B in .*damaged\.idx for its 2 sequences .* got 60 B/,
    ],
    ["absurd counts", edit((index) => index.writeBigUInt64LE(2n ** 62n, 18)), /expected an absurd size in/],
    [
      "a negative length",
      edit((index) => index.writeInt32LE(-5, 34)),
      /expected lengths of 0 or more .* got -5 for sequence 0/,
    ],
    [
      "a pointer beyond the end",
      edit((index) => index.writeBigInt64LE(400n, 50)),
      /expected at least 402 bytes in .*damaged\.bin .* got 6/,
    ],
    ["an empty file", () => Buffer.alloc(0), /expected an index of 34 bytes or more .* got 0/],
  ])("are refused: %s", (_, damage, sentence) => {
    using scratch = new Scratch();
    const prefix = damaged(scratch, damage);
    expect(() => new MegatronReader(prefix)).toThrow(sentence);
  });

  it("are refused: .bin shorter than .idx says", () => {
    using scratch = new Scratch();
    const prefix = damaged(scratch, (index) => index);
    truncateSync(`${prefix}.bin`, 5);
    expect(() => new MegatronReader(prefix)).toThrow(/expected at least 6 bytes in .*damaged\.bin .* got 5/);
  });

  it("are refused when one of the two is missing", () => {
    using scratch = new Scratch();
    expect(() => new MegatronReader(scratch.path("none"))).toThrow(/at .*none\.idx, got nothing there/);
    expect(() => new MegatronReader(`${fixturePath("tokens-int32")}x`)).toThrow(/got nothing there/);
  });

  it("are noticed when they shrink while open", () => {
    using scratch = new Scratch();
    const prefix = damaged(scratch, (index) => index);
    using reader = new MegatronReader(prefix, { residentBytes: 0 });
    const bin = openSync(`${prefix}.bin`, "r+");
    ftruncateSync(bin, 4);
    closeSync(bin);
    expect(() => reader.sequence(1)).toThrow(/the file was shortened while it was in use/);
  });
});
