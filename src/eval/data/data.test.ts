/** Data in its published forms: packed or not, JSON, CSV with and without a header, lines that belong together, labels beside. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { afterAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { DataError } from "../../base/index.ts";
import { TaskRegistry } from "../tasks/registry.ts";
import { readRows } from "./rows.ts";
import { DataStore } from "./store.ts";

const folder = mkdtempSync(join(tmpdir(), "nautilus-rows-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function put(name: string, content: string | Uint8Array): string {
  const path = join(folder, name);
  mkdirSync(join(path, ".."), { recursive: true });
  writeFileSync(path, content);
  return path;
}

const values = async (path: string, options = {}): Promise<unknown[]> =>
  (await readRows(path, options)).map(({ value }) => value);

describe("rows", () => {
  it("of JSON lines end at newlines alone, packed or not", async () => {
    const text = '{"a": "one\u2028two"}\r\n\n{"a": "\u0085"}\n';
    const expected = [{ a: "one\u2028two" }, { a: "\u0085" }];
    expect(await values(put("a.jsonl", text))).toEqual(expected);
    expect(await values(put("a.jsonl.gz", gzipSync(text)))).toEqual(expected);
    expect(await values(put("a.jsonl.zst", zstdCompressSync(Buffer.from(text))))).toEqual(expected);
  });

  it("of CSV may hold separators, quotes and newlines", async () => {
    const path = put("a.csv", 'q,a\n"one, ""two""\nthree",4\r\nplain,5\n');
    expect(await values(path)).toEqual([
      { q: 'one, "two"\nthree', a: "4" },
      { q: "plain", a: "5" },
    ]);
    expect((await readRows(path))[1].place).toMatch(/line 4$/);
    expect(await values(put("b.csv", "x,y\n"), { columns: ["p", "q"] })).toEqual([{ p: "x", q: "y" }]);
    await expect(readRows(put("c.csv", 'a,b\n"open,1\n'))).rejects.toThrow(/closing quote in .*line 2/);
    await expect(readRows(put("d.csv", "a,b\n1\n"))).rejects.toThrow(/expected 2 fields in .*line 2, got 1/);
  });

  it("names what it cannot read", async () => {
    await expect(readRows(put("a.xml", "<a/>"))).rejects.toThrow(DataError);
    await expect(readRows(put("bad.jsonl.gz", "no gzip"))).rejects.toThrow(/expected a packed file/);
    await expect(readRows(put("bad.parquet", "no parquet"))).rejects.toThrow(/expected a Parquet file/);
    await expect(readRows(put("latin.jsonl", Uint8Array.of(0xe9)))).rejects.toThrow(/expected UTF-8/);
  });
});

describe("the store", () => {
  const store = new DataStore({ folders: [folder] });
  const model = { tokenizer: undefined, maxSequenceTokens: 100 };

  it("gives rows the labels of a file beside", async () => {
    put("piqa/valid.jsonl", '{"goal": "g", "sol1": "a ", "sol2": "b"}\n');
    put("piqa/valid-labels.lst", "1\n");
    const task = new TaskRegistry().task("piqa");
    const open = await task?.open(store, { seed: 1, model });
    expect(open?.sample(0)).toMatchObject({
      target: "b",
      requests: [{ continuation: " a " }, { continuation: " b" }],
    });
  });

  it("reads MMLU's own CSV files, a subject a file", async () => {
    put("mmlu/test/anatomy_test.csv", '"Which, one?",w,x,y,z,C\n');
    put("mmlu/dev/anatomy_dev.csv", "Q1,1,2,3,4,A\nQ2,1,2,3,4,B\nQ3,1,2,3,4,C\nQ4,1,2,3,4,D\nQ5,1,2,3,4,A\n");
    const open = await new TaskRegistry().task("mmlu_anatomy")?.open(store, { seed: 1, model });
    const [request] = open?.sample(0).requests ?? [];
    expect(request).toMatchObject({ kind: "loglikelihood", continuation: " A" });
    expect(JSON.stringify(request)).toContain(
      "Q5\\nA. 1\\nB. 2\\nC. 3\\nD. 4\\nAnswer: A\\n\\nWhich, one?\\nA. w",
    );
  });

  it("drops examples that do not fit, as MMLU's own implementation does", async () => {
    const tokenizer = { encode: (text: string) => Int32Array.from(Buffer.from(text)) };
    const whole = await new TaskRegistry().task("mmlu_original_anatomy")?.open(store, {
      seed: 1,
      // Only `encode` is asked for here.
      model: { tokenizer: tokenizer as never, maxSequenceTokens: 220 },
    });
    const [request] = whole?.sample(0).requests ?? [];
    const text = request.kind === "loglikelihood" ? (request.texts?.context ?? "") : "";
    expect(text).toContain("about  anatomy");
    expect(text).toContain("Q1");
    expect(text).not.toContain("Q5");
    expect(Buffer.byteLength(text)).toBeLessThan(220);
  });

  it("pairs the lines of two languages", async () => {
    put("flores/devtest/deu_Latn.devtest", "Guten Tag\n");
    put("flores/devtest/eng_Latn.devtest", "Good day\n");
    const five = (word: string): string =>
      Array.from({ length: 5 }, (_, index) => `${word} ${index}\n`).join("");
    put("flores/dev/deu_Latn.dev", five("eins"));
    put("flores/dev/eng_Latn.dev", five("one"));
    const open = await new TaskRegistry().task("flores_deu_Latn-eng_Latn")?.open(store, { seed: 1, model });
    expect(open?.sample(0)).toMatchObject({ target: "Good day" });
    expect(JSON.stringify(open?.sample(0).requests)).toContain("German phrase: Guten Tag\\nEnglish phrase:");
  });

  it("keeps the languages of one data set apart", async () => {
    const squad = (question: string) =>
      JSON.stringify({
        data: [
          {
            paragraphs: [
              { context: "c", qas: [{ id: "1", question, answers: [{ text: "a", answer_start: 0 }] }] },
            ],
          },
        ],
      });
    const registry = new TaskRegistry();
    for (const [language, question] of [
      ["finnish", "Mikä?"],
      ["swahili", "Nini?"],
    ]) {
      for (const split of ["train", "dev"]) put(`tydiqa_goldp/${split}/${language}.json`, squad(question));
      const open = await registry.task(`tydiqa_goldp_${language}`)?.open(store, { seed: 1, model });
      expect(open?.sample(0).document).toMatchObject({ question });
    }
  });

  it("keeps rows of all tasks apart by their schema", () => {
    for (const task of new TaskRegistry().tasks) {
      expect(task.source.row).toBeInstanceOf(z.ZodType);
      expect(task.source.licence).not.toBe("");
      expect(task.source.splits[task.split].length).toBeGreaterThan(0);
    }
  });
});
