/**
 * The Public Pool of Prompts as JSON lines of `inputs_pretokenized` and `targets_pretokenized` (the token columns beside
 * them belong to another tokenizer and are not read). P3 pads both with white space, which is dropped.
 * Source: Sanh et al., "Multitask Prompted Training Enables Zero-Shot Task Generalization", 2022.
 */
import { jsonRecords, stringAt } from "./jsonLines.ts";
import type { FileSourceOf } from "./schema.ts";
import type { ParsedDocument, RawUnit } from "./unit.ts";

/** The documents of a unit of P3. Throws DataError naming file and line. */
export function* parseP3(unit: RawUnit, source: FileSourceOf<"p3">): Generator<ParsedDocument> {
  for (const record of jsonRecords(unit)) {
    const prompt = stringAt(record, "inputs_pretokenized").trim();
    const answer = stringAt(record, "targets_pretokenized").trim();
    yield { text: `${prompt}${source.separator}${answer}`, line: record.line };
  }
}
