import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, symlinkSync } from "node:fs";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { byteEncoderModule, type ByteEncoderOptions, createEncoder } from "../../../test/data/byteEncoder.ts";
import { Scratch } from "../../../test/data/scratch.ts";
import { saveTokenizer, trainTokenizer } from "../../text/index.ts";
import { MegatronReader } from "../megatron/reader.ts";
import { readDocumentBytes, readStatistics } from "../megatron/statistics.ts";
import type { Source } from "../sources/schema.ts";
import { tokenizerSha256 } from "./loadEncoder.ts";
import { prepareDataset, type PrepareOptions, type PrepareProgress } from "./prepare.ts";

const encoder = (options?: ByteEncoderOptions): PrepareOptions["encoder"] => ({
  module: byteEncoderModule,
  options,
});

/** Several files of several kinds, with empty documents and a large text. */
function corpus(scratch: Scratch): { sources: Source[]; documents: string[] } {
  const record = (i: number): string => `document ${i} ${"wörd ".repeat((i * 7919) % 900)}`;
  const records = Array.from({ length: 600 }, (_, i) => (i % 50 === 7 ? "" : record(i)));
  const toLines = (texts: string[]): string => texts.map((text) => `${JSON.stringify({ text })}\n`).join("");
  const large = "a line of a large text file\n".repeat(90_000);
  scratch.write("in/a.jsonl", toLines(records.slice(0, 200)));
  scratch.write("in/b.jsonl.gz", gzipSync(toLines(records.slice(200, 400))));
  scratch.write("in/c.jsonl.zst", zstdCompressSync(toLines(records.slice(400))));
  const big = scratch.write("big.txt", large);
  scratch.write("tree/one.md", "# One");
  scratch.write("tree/two/three.ts", "let three = 3;");
  return {
    sources: [{ kind: "json-lines", paths: scratch.path("in/*") }, big, scratch.path("tree")],
    documents: [...records.filter((text) => text !== ""), large, "# One", "let three = 3;"],
  };
}

function documentsOf(prefix: string): string[] {
  using reader = new MegatronReader(prefix);
  return Array.from({ length: reader.numSequences }, (_, i) => {
    const tokens = reader.sequence(i);
    expect(tokens.at(-1)).toBe(256);
    expect(tokens.subarray(0, -1).includes(256)).toBe(false);
    return Buffer.from(tokens.subarray(0, -1)).toString();
  });
}

describe("prepareDataset", () => {
  it("writes every document with text once, in order, and an end after each", async () => {
    using scratch = new Scratch();
    const { sources, documents } = corpus(scratch);
    const progress: PrepareProgress[] = [];
    const prepared = await prepareDataset({
      sources,
      output: scratch.path("out/data"),
      encoder: createEncoder(),
      onProgress: (next) => progress.push(next),
    });
    const prefix = scratch.path("out/data");
    const written = documentsOf(prefix);
    expect(written.length).toBe(documents.length);
    expect(written.every((text, i) => text === documents[i])).toBe(true);
    const textBytes = documents.map((text) => Buffer.byteLength(text));
    const total = textBytes.reduce((sum, bytes) => sum + bytes, 0);
    expect(prepared.all?.statistics).toEqual(readStatistics(prefix));
    expect(readStatistics(prefix)).toMatchObject({
      numDocuments: documents.length,
      numEmptyDocuments: 12,
      numTokens: total + documents.length,
      textBytes: total,
      dtype: "uint16",
      eosId: 256,
      tokenizerSha256: null,
    });
    expect([...(readDocumentBytes(prefix, documents.length) ?? [])]).toEqual(textBytes);
    expect(progress.at(-1)).toMatchObject({ textBytes: total, numDocuments: documents.length });
    expect(progress.at(-1)?.readBytes).toBe(progress.at(-1)?.totalBytes);
  });

  it("writes the same bytes with any number of workers", async () => {
    using scratch = new Scratch();
    const { sources } = corpus(scratch);
    for (const numWorkers of [0, 1, 3]) {
      await prepareDataset({
        sources,
        output: scratch.path(`w${numWorkers}`),
        encoder: encoder(),
        numWorkers,
      });
    }
    for (const ending of [".bin", ".idx", ".bytes", ".stats.json"]) {
      const [none, one, three] = [0, 1, 3].map((count) => readFileSync(scratch.path(`w${count}${ending}`)));
      expect(none.equals(one) && one.equals(three)).toBe(true);
    }
  });

  it("deals documents to train, valid and test", async () => {
    using scratch = new Scratch();
    const { sources, documents } = corpus(scratch);
    const output = scratch.path("split");
    const prepared = await prepareDataset({
      sources,
      output,
      encoder: encoder(),
      numWorkers: 2,
      split: "8,1,1",
    });
    const counts = Object.fromEntries(
      Object.entries(prepared).map(([part, { statistics }]) => [part, statistics.numDocuments]),
    );
    expect(counts).toEqual({ train: 473, valid: 59, test: 59 });
    const parts = ["train", "valid", "test"].flatMap((part) => documentsOf(`${output}-${part}`));
    expect(parts.toSorted()).toEqual(documents.toSorted());
  });

  it("encodes with a trained tokenizer in workers, and keeps its checksum", async () => {
    using scratch = new Scratch();
    const texts = [
      "the cat sat on the mat",
      "the end </s> of a document that cannot be forged",
      "a cat, the cat 😀",
    ];
    const sources = [scratch.write("a.jsonl", texts.map((text) => JSON.stringify({ text })).join("\n"))];
    const tokenizer = await trainTokenizer({ texts, vocabSize: 300 });
    saveTokenizer(tokenizer, scratch.path("tok"));
    const tokenizerPath = scratch.path("tok/tokenizer.json");
    const output = scratch.path("out");
    await prepareDataset({ sources, output, encoder: { tokenizerPath }, numWorkers: 1 });
    using reader = new MegatronReader(output);
    const documents = Array.from({ length: reader.numSequences }, (_, i) => reader.sequence(i));
    expect(documents.map((ids) => ids.indexOf(tokenizer.eosId))).toEqual(
      documents.map((ids) => ids.length - 1),
    );
    expect(documents.map((ids) => tokenizer.decode(ids))).toEqual(texts);
    const sha256 = createHash("sha256").update(readFileSync(tokenizerPath)).digest("hex");
    expect(readStatistics(output)?.tokenizerSha256).toBe(sha256);
    expect(tokenizerSha256(scratch.path("tok"))).toBe(sha256);
    const missing = prepareDataset({
      sources,
      output,
      encoder: { tokenizerPath: scratch.path("none.json") },
    });
    await expect(missing).rejects.toThrow(/none\.json, got nothing there/);
  });

  it("uses int32 for large vocabularies", async () => {
    using scratch = new Scratch();
    const sources = [scratch.write("a.txt", "abc")];
    const prepared = await prepareDataset({
      sources,
      output: scratch.path("a"),
      encoder: encoder({ vocabSize: 256_000 }),
    });
    expect(prepared.all?.statistics.dtype).toBe("int32");
    expect(documentsOf(scratch.path("a"))).toEqual(["abc"]);
  });

  it.each([0, 2])(
    "names the first broken record and leaves nothing behind (%i workers)",
    async (numWorkers) => {
      using scratch = new Scratch();
      const good = `${JSON.stringify({ text: "word ".repeat(2000) })}\n`;
      scratch.write("in/a.jsonl", `${good.repeat(100)}{"text": oops}\n${good.repeat(100)}`);
      scratch.write("in/b.jsonl", "also broken");
      const options = {
        sources: [scratch.path("in/*")],
        output: scratch.path("out/a"),
        encoder: encoder(),
        numWorkers,
      };
      await expect(prepareDataset(options)).rejects.toThrow(
        /^\[data\] expected JSON in .*a\.jsonl line 101, got .* \(Unexpected token/,
      );
      expect(readdirSync(scratch.path("out"))).toEqual([]);
    },
  );

  it("says what an encoder did that it must not", async () => {
    using scratch = new Scratch();
    const sources = [scratch.write("a.jsonl", '{"text":"ab"}\n{"text":"é"}')];
    const output = scratch.path("out");
    const prepare = (options: ByteEncoderOptions, numWorkers: number): Promise<unknown> =>
      prepareDataset({ sources, output, encoder: encoder(options), numWorkers });
    for (const numWorkers of [0, 1]) {
      await expect(prepare({ vocabSize: 128 }, numWorkers)).rejects.toThrow(
        /expected ids below the vocabulary of 128 for .*a\.jsonl line 2, got 195/,
      );
      await expect(prepare({ failAt: "é" }, numWorkers)).rejects.toThrow(
        /expected to tokenise .*a\.jsonl line 2, got cannot encode é/,
      );
    }
    await expect(
      prepareDataset({ sources, output, encoder: { module: "file:///none/such.ts" }, numWorkers: 1 }),
    ).rejects.toThrow("expected an encoder module at file:///none/such.ts");
  });

  it("stops when it is told to", async () => {
    using scratch = new Scratch();
    const { sources } = corpus(scratch);
    const signal = AbortSignal.abort(new Error("stopped"));
    const options = { sources, output: scratch.path("out/a"), encoder: encoder(), numWorkers: 1, signal };
    await expect(prepareDataset(options)).rejects.toThrow("stopped");
    expect(readdirSync(scratch.path("out"))).toEqual([]);
  });

  it("refuses input without text, and a folder that cannot be", async () => {
    using scratch = new Scratch();
    const empty = scratch.write("empty.jsonl", "\n\n");
    await expect(
      prepareDataset({ sources: [empty], output: scratch.path("e"), encoder: createEncoder() }),
    ).rejects.toThrow(
      /expected at least one document with text in .*empty\.jsonl, got none \(the files are empty\)/,
    );
    expect(readdirSync(scratch.folder)).toEqual(["empty.jsonl"]);
    const file = scratch.write("file", "x");
    await expect(
      prepareDataset({ sources: [file], output: `${file}/below`, encoder: createEncoder() }),
    ).rejects.toThrow(/expected a writable folder at .*file/);
  });

  it("says that a disk is full and leaves nothing behind", async (context) => {
    if (!existsSync("/dev/full")) context.skip("no /dev/full on this system");
    using scratch = new Scratch();
    const sources = [scratch.write("in/a.txt", "text")];
    // Everything written to /dev/full is refused as on a full disk.
    symlinkSync("/dev/full", scratch.path(`a.bin.${process.pid}.part`));
    await expect(
      prepareDataset({ sources, output: scratch.path("a"), encoder: createEncoder() }),
    ).rejects.toThrow(/a\.bin.*, got a full disk \(free some space/);
    expect(readdirSync(scratch.folder)).toEqual(["in"]);
  });
});
