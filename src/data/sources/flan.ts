/**
 * FLAN v2 as distributed in JSON lines: `inputs` is the filled template, `targets` the answer. A document is both, so that a
 * language model learns to continue the one with the other.
 * Source: Longpre et al., "The Flan Collection", 2023; the layout of the published submixtures.
 */
import { jsonRecords, stringAt } from "./jsonLines.ts";
import type { FileSourceOf } from "./schema.ts";
import type { ParsedDocument, RawUnit } from "./unit.ts";

/** The documents of a unit of FLAN v2. Throws DataError naming file and line. */
export function* parseFlan(unit: RawUnit, source: FileSourceOf<"flan">): Generator<ParsedDocument> {
  for (const record of jsonRecords(unit)) {
    const text = `${stringAt(record, "inputs")}${source.separator}${stringAt(record, "targets")}`;
    yield { text, line: record.line };
  }
}
