import { mkdirSync, symlinkSync } from "node:fs";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { Scratch } from "../../../test/data/scratch.ts";
import { listFiles } from "./files.ts";
import { readDocuments } from "./read.ts";
import type { Source } from "./schema.ts";

async function texts(...sources: Source[]): Promise<string[]> {
  const found: string[] = [];
  for await (const { text } of readDocuments(sources)) found.push(text);
  return found;
}

const lines = ['{"text":"one","n":1}', "", '{"id":2,"text":"zwei \\u00e4 😀"}', '{"text":""}'].join("\n");
const parsed = ["one", "zwei ä 😀", ""];

describe("JSON lines", () => {
  it("are read plain and compressed, by glob and from folders, in sorted order", async () => {
    using scratch = new Scratch();
    const plain = scratch.write("in/b.jsonl", `${lines}\r\n`);
    scratch.write("in/a.jsonl.gz", gzipSync('{"text":"from a"}\n'));
    scratch.write("in/sub/c.jsonl.zst", zstdCompressSync('{"text":"from c"}'));
    expect(await texts(plain)).toEqual(parsed);
    expect(await texts({ kind: "json-lines", paths: scratch.path("in/*.jsonl*") })).toEqual([
      "from a",
      ...parsed,
    ]);
    expect(await texts({ kind: "json-lines", paths: scratch.path("in") })).toEqual([
      "from a",
      ...parsed,
      "from c",
    ]);
    expect(await texts(scratch.path("in"))).toEqual(["from a", ...parsed, "from c"]);
  });

  it("take the text from another key", async () => {
    using scratch = new Scratch();
    const paths = scratch.write("a.jsonl", '{"content":"x"}');
    expect(await texts({ kind: "json-lines", paths, textKey: "content" })).toEqual(["x"]);
    await expect(texts({ kind: "json-lines", paths })).rejects.toThrow(
      /expected a string at key 'text' in .*a\.jsonl line 1, got nothing \(keys there: content\)/,
    );
  });

  it("mend halves of surrogate pairs, drop a byte order mark, and give line numbers", async () => {
    using scratch = new Scratch();
    const path = scratch.write("a.jsonl", '\uFEFF{"text":"\\ud83d!"}\n\n{"text":"b"}');
    const found = [];
    for await (const document of readDocuments([path])) found.push(document);
    expect(found).toEqual([
      { text: "\uFFFD!", line: 1, file: path, isContinued: false },
      { text: "b", line: 3, file: path, isContinued: false },
    ]);
  });

  it.each<[string, string | Uint8Array, RegExp]>([
    [
      "a broken line",
      '{"text":"a"}\n{"text":\n',
      /expected JSON in .*bad\.jsonl line 2, got "\{\\"text\\":" \(Unexpected end of JSON input\)/,
    ],
    ["no object", '"text"', /expected a JSON object in .*bad\.jsonl line 1, got "\\"text\\""/],
    ["no string", '{"text":5}', /expected a string at key 'text' in .*bad\.jsonl line 1, got "5"/],
    [
      "bytes that are not UTF-8",
      Buffer.from('{"text":"a"}\n{"text":"\xe9"}', "latin1"),
      /expected UTF-8 in .*bad\.jsonl line 2/,
    ],
  ])("refuse %s", async (_, content, sentence) => {
    using scratch = new Scratch();
    await expect(texts(scratch.write("bad.jsonl", content))).rejects.toThrow(sentence);
  });

  it("replace or skip what is not UTF-8 when asked to", async () => {
    using scratch = new Scratch();
    const paths = scratch.write("a.jsonl", Buffer.from('{"text":"a"}\n{"text":"\xe9"}', "latin1"));
    expect(await texts({ kind: "json-lines", paths, invalidUtf8: "replace" })).toEqual(["a", "\uFFFD"]);
    expect(await texts({ kind: "json-lines", paths, invalidUtf8: "skip" })).toEqual(["a"]);
  });
});

describe("text files", () => {
  it("are a document each, or one per line", async () => {
    using scratch = new Scratch();
    const paths = scratch.write("a.txt", "first\r\n\nthird");
    expect(await texts(paths)).toEqual(["first\r\n\nthird"]);
    expect(await texts({ kind: "text", paths, documents: "line" })).toEqual(["first", "", "third"]);
    expect(await texts(scratch.write("empty.txt", ""))).toEqual([]);
    expect(await texts(scratch.write("a.md.gz", gzipSync("# title")))).toEqual(["# title"]);
  });

  it("come in pieces when they are large", async () => {
    using scratch = new Scratch();
    const text = "0123456789 äöü\n".repeat(200_000);
    const path = scratch.write("large.txt", text);
    const pieces = [];
    for await (const piece of readDocuments([path])) pieces.push(piece);
    expect(pieces.length).toBeGreaterThan(2);
    expect(pieces.map(({ isContinued }) => isContinued)).toEqual(pieces.map((_, i) => i < pieces.length - 1));
    expect(pieces.map(({ text }) => text).join("") === text).toBe(true);
    expect(pieces[1].line).toBe(pieces[0].text.split("\n").length);
    expect(await texts(scratch.write("large.txt.gz", gzipSync(text)))).toEqual(
      pieces.map((piece) => piece.text),
    );
  });

  it("name the line that is not UTF-8", async () => {
    using scratch = new Scratch();
    const path = scratch.write("latin.txt", Buffer.from("good\nsch\xf6n\n", "latin1"));
    await expect(texts(path)).rejects.toThrow(
      /expected UTF-8 in .*latin\.txt line 2, got bytes that are not/,
    );
  });
});

describe("source trees", () => {
  it("are walked in sorted order without what nobody wrote", async () => {
    using scratch = new Scratch();
    const files = {
      "b.ts": "b",
      "a.md": "a",
      "src/z.ts": "z",
      "src/generated/x.ts": "ignored by rule",
      "src/keep.log": "kept",
      "src/drop.log": "ignored by pattern",
      "node_modules/p/index.js": "dependency",
      ".git/config": "git",
      "package-lock.json": "{}",
      "app.min.js": "min",
      "picture.png": "png",
      "binary.dat": Buffer.from([65, 0, 66]),
      "latin.txt": Buffer.from("\xe9", "latin1"),
      "data/records.jsonl": '{"text":"record"}',
      ".gitignore": "*.log\n!keep.log\n/src/generated/\n# comment\n",
      "empty.ts": "",
      "big.txt": "x".repeat(2000),
    };
    for (const [name, content] of Object.entries(files)) scratch.write(`tree/${name}`, content);
    symlinkSync(scratch.path("tree/src"), scratch.path("tree/loop"));
    const root = scratch.path("tree");
    const tree = (options: object): Promise<string[]> =>
      texts({ kind: "tree", paths: root, maxFileBytes: 1000, ...options });
    const gitignore = files[".gitignore"];
    expect(await tree({})).toEqual([gitignore, "a", "b", "record", "kept", "z"]);
    expect(await tree({ include: ["**/*.ts"] })).toEqual(["b", "z"]);
    expect(await tree({ include: ["*.{ts,md}"], exclude: ["a*"] })).toEqual(["b"]);
    expect(await tree({ include: ["src/**"], gitignore: false })).toEqual([
      "ignored by pattern",
      "ignored by rule",
      "kept",
      "z",
    ]);
    expect(await tree({ include: ["latin.txt"], invalidUtf8: "replace" })).toEqual(["\uFFFD"]);
    expect(await texts({ kind: "tree", paths: root, include: ["big.txt"] })).toEqual(["x".repeat(2000)]);
  });
});

describe("listFiles", () => {
  it.each<[string, Source, RegExp]>([
    ["a missing file", "none/such.jsonl", /at none\/such\.jsonl, got nothing there/],
    ["a glob without files", "none/*.jsonl", /expected files at none\/\*\.jsonl, got none that match/],
    ["a missing tree", { kind: "tree", paths: "none" }, /expected a folder at none, got nothing there/],
    [
      "an unknown key",
      JSON.parse('{"kind":"json-lines","paths":"a","textkey":"b"}'),
      /expected a known key, got 'textkey' \(did you mean 'textKey'\?\)/,
    ],
    [
      "an unknown kind",
      JSON.parse('{"kind":"json-line","paths":"a"}'),
      /got 'json-line' \(did you mean 'json-lines'\?\)/,
    ],
  ])("refuses %s", (_, source, sentence) => {
    expect(() => listFiles([source])).toThrow(sentence);
  });

  it("refuses a folder without such files", () => {
    using scratch = new Scratch();
    mkdirSync(scratch.path("empty"));
    expect(() => listFiles([{ kind: "json-lines", paths: scratch.path("empty") }])).toThrow(
      "got none that match",
    );
  });
});
