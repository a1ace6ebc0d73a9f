/**
 * What is kept beside a data set: totals in `<prefix>.stats.json` and the UTF-8 bytes of each document in `<prefix>.bytes`
 * (uint32, one per document). They turn a loss per token into bits per byte, and tell whether the tokens were made by the
 * tokenizer at hand. Data written by Megatron has neither file; nothing else depends on them.
 */
import { existsSync, readFileSync } from "node:fs";
import { z } from "zod";
import { DataError, parseConfig, readJson, withFileErrors } from "../../base/index.ts";
import { filesOf } from "./format.ts";

const statisticsSchema = z.strictObject({
  format: z.literal("nautilus-tokens"),
  version: z.literal(1),
  /** Documents that hold tokens; each is one sequence of the index. */
  numDocuments: z.number().int().nonnegative(),
  /** Documents of the sources that held no text, which are not in the data set. */
  numEmptyDocuments: z.number().int().nonnegative(),
  /** All tokens, end-of-document tokens included. */
  numTokens: z.number().int().nonnegative(),
  /** UTF-8 bytes of the text that the tokens stand for. */
  textBytes: z.number().int().nonnegative(),
  dtype: z.enum(["uint16", "int32"]),
  vocabSize: z.number().int().positive(),
  eosId: z.number().int().nonnegative(),
  /** sha256 of the tokenizer's file, where it came from one. */
  tokenizerSha256: z.string().nullable(),
});

export type DataStatistics = z.infer<typeof statisticsSchema>;

/** The totals kept beside `prefix`; undefined where there are none (data made by Megatron). Throws DataError, FileError. */
export function readStatistics(prefix: string): DataStatistics | undefined {
  const path = filesOf(prefix).statistics;
  return existsSync(path) ? parseConfig(`data ${path}`, statisticsSchema, readJson("data", path)) : undefined;
}

/** UTF-8 bytes of each document of `prefix`; undefined where they were not kept. Throws DataError, FileError. */
export function readDocumentBytes(prefix: string, numDocuments: number): Uint32Array | undefined {
  const path = filesOf(prefix).documentBytes;
  if (!existsSync(path)) return undefined;
  const bytes = withFileErrors("data", "a readable file", path, () => readFileSync(path));
  if (bytes.byteLength !== 4 * numDocuments) {
    throw new DataError(
      "data",
      `expected ${4 * numDocuments} bytes (4 for each of ${numDocuments} documents) in ${path}, got ${bytes.byteLength}`,
      { hint: "the file belongs to another .idx: prepare the data again" },
    );
  }
  return new Uint32Array(Uint8Array.from(bytes).buffer);
}

/** Throws a DataError when `prefix` is known to have been made by another tokenizer than the one with `sha256`. */
export function expectTokenizer(prefix: string, sha256: string): void {
  const kept = readStatistics(prefix)?.tokenizerSha256;
  if (kept === undefined || kept === null || kept === sha256) return;
  throw new DataError(
    "data",
    `expected tokens of tokenizer ${sha256.slice(0, 12)} in ${filesOf(prefix).bin}, got those of ${kept.slice(0, 12)}`,
    { hint: "prepare the data again with this tokenizer", fields: { prefix } },
  );
}

/** Throws a DataError when the tokens of `prefix` are known to be of a larger vocabulary than `vocabSize`. */
export function expectVocabulary(prefix: string, vocabSize: number): void {
  const kept = readStatistics(prefix)?.vocabSize ?? 0;
  if (kept <= vocabSize) return;
  throw new DataError(
    "data",
    `expected tokens of a vocabulary of at most ${vocabSize} in ${filesOf(prefix).bin}, got one of ${kept}`,
    { hint: "prepare the data again with the model's tokenizer", fields: { prefix } },
  );
}
