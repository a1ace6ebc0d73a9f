/** A tuning file, encoded and checked: what can be learnt from it, how much was cut, and what it looks like. */
import { DataError } from "../../base/index.ts";
import type { Tokenizer } from "../../text/index.ts";
import { encodeText } from "./encode.ts";
import type { EncodedText, EncodeTextOptions } from "./encode.ts";
import { shuffled } from "./packing.ts";
import { readTuningRecords } from "./records.ts";
import type { RecordPlace, TuningRecord } from "./records.ts";

export type TuningExample = RecordPlace &
  (
    | { kind: "text"; text: EncodedText }
    | {
        kind: "preference";
        chosen: EncodedText;
        rejected: EncodedText;
        chosenReward?: number;
        rejectedReward?: number;
      }
    | { kind: "unpaired"; text: EncodedText; isDesirable: boolean }
  );

export interface TuningStatistics {
  numExamples: number;
  numTokens: number;
  numTrained: number;
  meanLength: number;
  longest: number;
  /** Examples that lost part of an answer, and of a prompt. */
  numCutAnswers: number;
  numCutPrompts: number;
  /** Examples left out because nothing of them would be learnt. */
  numDropped: number;
}

export interface TuningData {
  kind: TuningExample["kind"];
  examples: TuningExample[];
  statistics: TuningStatistics;
}

/** The texts of an example. */
export function textsOf(example: TuningExample): EncodedText[] {
  return example.kind === "preference" ? [example.chosen, example.rejected] : [example.text];
}

/** Reads and encodes files of one kind. Throws FileError, DataError. */
export function readTuningData(files: readonly string[], options: EncodeTextOptions): TuningData {
  const records = files.flatMap((file) => readTuningRecords(file));
  const { kind } = records[0];
  const other = records.find((record) => record.kind !== kind);
  if (other !== undefined) {
    throw new DataError(
      "data",
      `${other.file}:${other.line}: expected ${kind} records as in ${records[0].file}, got ${other.kind}`,
      {
        hint: "tune on one kind at a time",
      },
    );
  }
  const examples = records.map((record) => encodeRecord(record, options));
  const kept = examples.filter((example) => textsOf(example).every(({ isTrained }) => isTrained.includes(1)));
  if (kept.length === 0) {
    const cut = examples.some((example) => textsOf(example).some(({ numCutAnswer }) => numCutAnswer > 0));
    throw new DataError(
      "data",
      `expected something to learn in ${files.join(", ")}, got ${examples.length} examples without a learnt token`,
      {
        hint: cut
          ? "the answers were cut away: raise maxLength"
          : "every turn is masked, or the answers are empty",
      },
    );
  }
  return { kind, examples: kept, statistics: statisticsOf(examples, kept) };
}

function encodeRecord(record: TuningRecord, options: EncodeTextOptions): TuningExample {
  const { file, line } = record;
  const place = { file, line };
  switch (record.kind) {
    case "preference": {
      const { chosen, rejected, ...rest } = record;
      return {
        ...rest,
        chosen: encodeText(chosen, place, options),
        rejected: encodeText(rejected, place, options),
      };
    }
    case "unpaired":
    case "text":
      return { ...record, text: encodeText(record.text, place, options) };
  }
}

function statisticsOf(all: readonly TuningExample[], kept: readonly TuningExample[]): TuningStatistics {
  const texts = kept.flatMap(textsOf);
  const lengths = texts.map(({ tokens }) => tokens.length);
  const numTokens = lengths.reduce((total, length) => total + length, 0);
  const count = (cut: "numCutAnswer" | "numCutPrompt"): number =>
    all.filter((example) => textsOf(example).some((text) => text[cut] > 0)).length;
  return {
    numExamples: kept.length,
    numTokens,
    numTrained: texts.reduce(
      (total, { isTrained }) => total + isTrained.reduce((sum, one) => sum + one, 0),
      0,
    ),
    meanLength: numTokens / texts.length,
    longest: lengths.reduce((most, length) => Math.max(most, length), 0),
    numCutAnswers: count("numCutAnswer"),
    numCutPrompts: count("numCutPrompt"),
    numDropped: all.length - kept.length,
  };
}

/** Takes a share of the examples away, drawn from the seed, for validation. At least one stays on either side. */
export function splitTuningData(
  examples: readonly TuningExample[],
  { share, seed }: { share: number; seed: number },
): { train: TuningExample[]; validation: TuningExample[] } {
  const wanted = share === 0 || examples.length < 2 ? 0 : Math.max(1, Math.floor(share * examples.length));
  const chosen = new Set(
    shuffled(examples.length, seed, 2 ** 20).slice(0, Math.min(wanted, examples.length - 1)),
  );
  return {
    train: examples.filter((_, i) => !chosen.has(i)),
    validation: examples.filter((_, i) => chosen.has(i)),
  };
}

const colours = { trained: "\u001b[32m", other: "\u001b[90m", end: "\u001b[0m" };

/** A text as it is learnt: what the model learns in green between ⟦ ⟧, all else in grey; without colours the brackets tell. */
export function showText(
  { tokens, isTrained }: EncodedText,
  tokenizer: Tokenizer,
  hasColours: boolean,
): string {
  let shown = "";
  for (let begin = 0; begin < tokens.length;) {
    let end = begin;
    while (end < tokens.length && isTrained[end] === isTrained[begin]) end++;
    const text = tokenizer.decode(tokens.subarray(begin, end), {
      specialTokens: "show",
      startsText: begin === 0,
    });
    const isLearnt = isTrained[begin] === 1;
    const marked = isLearnt ? `⟦${text}⟧` : text;
    shown += hasColours ? `${isLearnt ? colours.trained : colours.other}${marked}${colours.end}` : marked;
    begin = end;
  }
  return shown;
}
