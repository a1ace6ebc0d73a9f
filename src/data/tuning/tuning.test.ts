/** Tuning data: every form, what of it is learnt, what is cut, and what is refused. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Tokenizer } from "../../text/index.ts";
import { layOut } from "./batch.ts";
import { readTuningData, showText, splitTuningData, textsOf } from "./dataset.ts";
import type { TuningData } from "./dataset.ts";
import type { EncodeTextOptions } from "./encode.ts";
import { packFirstFit, shuffled } from "./packing.ts";

let folder: string;
beforeAll(() => (folder = mkdtempSync(join(tmpdir(), "nautilus-tuning-data-"))));
afterAll(() => rmSync(folder, { recursive: true }));

const [bosId, eosId] = [1, 2];
/** One token a character. */
const tokenizer: Tokenizer = {
  vocabSize: 2 ** 16,
  bosId,
  eosId,
  padId: 0,
  unkId: undefined,
  specialTokens: new Map(),
  encode: (text) => Int32Array.from(text, (character) => character.charCodeAt(0)),
  encodeBytes: (bytes) => Int32Array.from(bytes),
  decode: (ids) =>
    Array.from(ids, (id) => (id === bosId ? "<s>" : id === eosId ? "</s>" : String.fromCharCode(id))).join(
      "",
    ),
  decodeBytes: () => new Uint8Array(),
  createDecoder: () => ({ push: () => "", flush: () => "" }),
  idOf: () => undefined,
  pieceOf: String,
};
const options: EncodeTextOptions = {
  tokenizer,
  promptTemplate: "{input} {output}",
  chat: "nemotron",
  addBos: true,
  addEos: true,
  answerOnly: true,
  maxLength: 1000,
  cut: "left",
};

function read(lines: readonly unknown[], changes: Partial<EncodeTextOptions> = {}): TuningData {
  const file = join(folder, "data.jsonl");
  writeFileSync(
    file,
    lines.map((line) => (typeof line === "string" ? line : JSON.stringify(line))).join("\n"),
  );
  return readTuningData([file], { ...options, ...changes });
}
const shown = (lines: readonly unknown[], changes: Partial<EncodeTextOptions> = {}): string[] =>
  read(lines, changes)
    .examples.flatMap(textsOf)
    .map((text) => showText(text, tokenizer, false));

describe("forms", () => {
  it("input and output by a template, with further fields", () => {
    expect(shown([{ input: " Why? ", output: "So." }])).toEqual(["<s>Why?⟦ So.</s>⟧"]);
    expect(
      shown([{ context: "C", input: "Q", output: "A" }], {
        promptTemplate: "{context}\n\nQ: {input}\nA: {output}",
      }),
    ).toEqual(["<s>C\n\nQ: Q\nA:⟦ A</s>⟧"]);
  });
  it("prompt and completion, as they are, and everything where not the answer alone counts", () => {
    expect(shown([{ prompt: "a ", completion: "b" }])).toEqual(["<s>a ⟦b</s>⟧"]);
    expect(
      shown([{ prompt: "a ", completion: "b" }], { answerOnly: false, addBos: false, addEos: false }),
    ).toEqual(["a⟦ b⟧"]);
  });
  it("messages in Nemotron's form: every answer with the mark that ends it", () => {
    const messages = [
      { role: "system", content: "S" },
      { role: "user", content: "U" },
      { role: "assistant", content: "A" },
      { role: "user", content: "V" },
      { role: "assistant", content: "B" },
    ];
    expect(shown([{ messages }], { addBos: false, addEos: false })).toEqual([
      "<extra_id_0>System\nS\n<extra_id_1>User\nU\n<extra_id_1>Assistant\n⟦A\n<extra_id_1>⟧User\nV\n<extra_id_1>Assistant\n⟦B\n<extra_id_1>⟧",
    ]);
  });
  it("NeMo's conversations with a mask, SteerLM's labels, and ShareGPT's", () => {
    const conversations = [
      { from: "User", value: "U" },
      { from: "Assistant", value: "A", label: "quality:4,toxicity:0" },
    ];
    const plain = { addBos: false, addEos: false };
    const nemo = shown([{ system: "S", mask: "User", conversations }], plain);
    expect(nemo).toEqual([
      "<extra_id_0>System\nS\n<extra_id_1>User\nU\n<extra_id_1>Assistant\n⟦A\n<extra_id_1>⟧",
    ]);
    const [steered] = shown([{ system: "S", mask: "User", conversations }], { ...plain, chat: "steerlm" });
    expect(steered).toContain("<extra_id_2>quality:4,");
    const turns = [
      { from: "human", value: "U" },
      { from: "gpt", value: "A" },
    ];
    expect(shown([{ conversations: turns, system: "S" }], plain)).toEqual(nemo);
    expect(() => read([{ conversations, mask: "User,Assistant" }])).toThrow(
      /expected something to learn .*every turn is masked/,
    );
  });
  it("preferences with and without a prompt, and unpaired ones", () => {
    expect(shown([{ prompt: "p", chosen: " c", rejected: " r" }], { addBos: false })).toEqual([
      "p⟦ c</s>⟧",
      "p⟦ r</s>⟧",
    ]);
    expect(shown([{ chosen: "say good", rejected: "say bad" }], { addBos: false })).toEqual([
      "say ⟦good</s>⟧",
      "say ⟦bad</s>⟧",
    ]);
    const data = read([
      { prompt: "p", chosen_response: "c", rejected_response: "r", chosen_reward: 4, rejected_reward: 1 },
    ]);
    expect(data.examples[0]).toMatchObject({ kind: "preference", chosenReward: 4, rejectedReward: 1 });
    expect(read([{ prompt: "p", completion: "c", label: false }]).examples[0]).toMatchObject({
      kind: "unpaired",
      isDesirable: false,
    });
  });
});

describe("cutting", () => {
  it("takes the prompt first, then the answer's end, and counts both", () => {
    const record = { prompt: "0123456789", completion: "answer" };
    expect(shown([record], { maxLength: 10 })).toEqual(["<s>89⟦answer</s>⟧"]);
    expect(shown([record], { maxLength: 10, cut: "right" })).toEqual(["<s>01⟦answer</s>⟧"]);
    const data = read([record, { prompt: "", completion: "abc" }], { maxLength: 5 });
    expect(data.statistics).toMatchObject({
      numExamples: 2,
      numCutAnswers: 1,
      numCutPrompts: 1,
      longest: 5,
      numDropped: 0,
    });
    expect(() =>
      read([{ input: "i", output: "o" }], {
        maxLength: 3,
        promptTemplate: "long instruction {input} {output}",
      }),
    ).toThrow(/the answers were cut away: raise maxLength/);
  });
});

describe("what is refused, by file and line", () => {
  it.each([
    [[], /expected records in .*data.jsonl, got none/],
    [["", "{"], /data.jsonl:2: expected a JSON object, got \{/],
    [[{ a: 1 }], /data.jsonl:1: expected a known form, got the fields a/],
    [
      [{ prompt: "p", completion: "c" }, { messages: [] }],
      /data.jsonl:2: expected prompt and completion as in line 1, got messages/,
    ],
    [[{ messages: [] }], /data.jsonl:1: expected a list of messages, got none/],
    [
      [{ messages: [{ role: "user", content: "x" }] }],
      /data.jsonl:1: expected an answer of the assistant, got none/,
    ],
    [[{ input: 3, output: "x" }], /data.jsonl:1: expected input as text, got 3/],
    [[{ prompt: "p", completion: "c", label: "yes" }], /expected label to be true or false, got "yes"/],
    [[{ conversations: [{ from: "bot", value: "x" }] }], /expected a speaker, got 'bot'/],
    [[{ input: "x", output: "" }], /expected something to learn/],
  ] as const)("%j", (lines, message) => {
    expect(() => read(lines, { addEos: false })).toThrow(message);
  });
  it("fields that the template has and the record not", () => {
    expect(() =>
      read([{ input: "x", output: "y" }], { promptTemplate: "{context} {input} {output}" }),
    ).toThrow(/data.jsonl:1: expected the template's field 'context', got none/);
    expect(() => read([{ input: "x", output: "y" }], { promptTemplate: "{input} {output}." })).toThrow(
      /ends with the answer's field/,
    );
  });
});

describe("rows", () => {
  it("pack every text once and never above the capacity", () => {
    const lengths = Array.from({ length: 200 }, (_, i) => 1 + ((i * 37) % 50));
    const rows = packFirstFit(lengths, 64);
    expect(rows.flat().sort((a, b) => a - b)).toEqual(lengths.map((_, i) => i));
    const fills = rows.map((row) => row.reduce((sum, index) => sum + lengths[index], 0));
    expect(Math.max(...fills)).toBeLessThanOrEqual(64);
    const total = lengths.reduce((sum, length) => sum + length, 0);
    expect(rows.length).toBeLessThanOrEqual(Math.ceil((total / 64) * 1.05) + 1);
    expect(shuffled(9, 3, 1).toSorted((a, b) => a - b)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8]);
    expect(shuffled(50, 3, 1)).not.toEqual(shuffled(50, 3, 2));
  });
  it("lie with positions from 0 and targets within their text", () => {
    const { examples } = read(
      [
        { prompt: "ab", completion: "c" },
        { prompt: "d", completion: "e" },
      ],
      { addBos: false },
    );
    const batch = layOut(examples.flatMap(textsOf), {
      layout: "packed",
      padId: 0,
      prefix: [7, 8],
      roundTo: 16,
    });
    expect([...(batch.cuSeqLens ?? [])]).toEqual([0, 6, 11, 16]);
    expect([...batch.positions]).toEqual([0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4]);
    const [c, e] = [99, 101];
    expect([...batch.targets]).toEqual([
      -100,
      -100,
      -100,
      c,
      eosId,
      -100,
      -100,
      -100,
      e,
      eosId,
      -100,
      -100,
      -100,
      -100,
      -100,
      -100,
    ]);
  });
  it("are shared by texts of a group that begin alike, up to the first target of any", () => {
    const text = (tokens: number[], numPrompt: number) => ({
      tokens: Int32Array.from(tokens),
      isTrained: Uint8Array.from(tokens, (_, i) => Number(i >= numPrompt)),
      numCutAnswer: 0,
      numCutPrompt: 0,
    });
    const texts = [text([5, 6, 7, 8, 9], 3), text([5, 6], 2), text([5, 6, 7, 8], 3), text([5, 4], 1)];
    const options = { layout: "packed", padId: 0, prefix: [3], roundTo: 4 } as const;
    const groups = [
      [0, 2],
      [1, 3],
    ];
    const batch = layOut(texts, { ...options, groups });
    // 3 5 6 | 7 8 9 | 7 8, then 3 | 5 6 | 5 4: text 3 learns the token after its first.
    expect([...batch.tokens]).toEqual([3, 5, 6, 7, 8, 9, 7, 8, 3, 5, 6, 5, 4, 0, 0, 0]);
    expect([...batch.positions]).toEqual([0, 1, 2, 3, 4, 5, 3, 4, 0, 1, 2, 1, 2, 0, 1, 2]);
    const learnt = [...batch.targets.entries()].filter(([, target]) => target >= 0);
    expect(learnt).toEqual([
      [3, 8],
      [4, 9],
      [6, 8],
      [11, 4],
    ]);
    expect(batch.texts).toEqual([
      { begin: 3, end: 6 },
      { begin: 9, end: 11 },
      { begin: 6, end: 8 },
      { begin: 11, end: 13 },
    ]);
    expect([...(batch.cuSeqLens ?? [])]).toEqual([0, 6, 11, 14, 17, 20]);
    expect([...(batch.rowOfToken ?? [])]).toEqual(
      [0, 1, 2, 3, 4, 5].concat([0, 1, 2, 6, 7], [8, 9, 10], [8, 11, 12], [13, 14, 15]),
    );
    const apart = layOut(texts, options);
    expect([apart.tokens.length, apart.rowOfToken]).toEqual([20, undefined]);
    const padded = layOut(texts, { ...options, layout: "padded" });
    expect([batch, apart, padded].map(({ numTokens }) => numTokens)).toEqual([17, 17, 17]);
    expect(() => layOut(texts, { ...options, groups: [[0, 2], [1]] })).toThrow(/every text is in one group/);
  });
  it("split off at least one example for validation, and leave one", () => {
    const { examples } = read(Array.from({ length: 10 }, (_, i) => ({ prompt: "p", completion: `c${i}` })));
    const split = splitTuningData(examples, { share: 0.3, seed: 1 });
    expect([split.train.length, split.validation.length]).toEqual([7, 3]);
    expect(splitTuningData(examples.slice(0, 1), { share: 0.3, seed: 1 }).validation).toEqual([]);
  });
});
