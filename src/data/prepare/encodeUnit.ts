/**
 * A raw unit to the tokens of its documents: the work of one worker, a pure function of unit and encoder. Empty documents
 * are counted and dropped; every other one ends with the end-of-document id, once (pieces of a large one get it later).
 */
import { DataError, messageOf, NautilusError } from "../../base/index.ts";
import type { DocumentEncoder } from "../encoder.ts";
import { GrowingArray } from "../growing.ts";
import { dtypeForVocabulary, makeTokens, type WrittenTokens } from "../megatron/format.ts";
import { parseUnit } from "../sources/read.ts";
import type { RawUnit } from "../sources/unit.ts";

/** The tokens of a unit. `lengths[i]` tokens and `textBytes[i]` bytes belong to document (or piece) i. */
export interface EncodedUnit {
  readonly tokens: WrittenTokens;
  readonly lengths: Int32Array;
  readonly textBytes: Uint32Array;
  readonly numEmptyDocuments: number;
}

/** Throws DataError. */
export function encodeUnit(unit: RawUnit, encoder: DocumentEncoder): EncodedUnit {
  const dtype = dtypeForVocabulary(encoder.vocabSize);
  const tokens = new GrowingArray(
    (length) => makeTokens(dtype, length),
    Math.max(1024, unit.bytes.length >> 1),
  );
  const lengths = new GrowingArray((length) => new Int32Array(length), 64);
  const textBytes = new GrowingArray((length) => new Uint32Array(length), 64);
  const isPiece = !unit.startsDocument || !unit.endsDocument;
  let numEmptyDocuments = 0;
  for (const { text, line } of parseUnit(unit)) {
    const ids = encode(encoder, text, unit.file, line);
    if (ids.length === 0 && !isPiece) {
      numEmptyDocuments++;
      continue;
    }
    tokens.append(ids);
    if (!isPiece) tokens.push(encoder.eosId);
    lengths.push(ids.length + (isPiece ? 0 : 1));
    textBytes.push(Buffer.byteLength(text, "utf8"));
  }
  return {
    tokens: tokens.view().slice(),
    lengths: lengths.view().slice(),
    textBytes: textBytes.view().slice(),
    numEmptyDocuments,
  };
}

function encode(encoder: DocumentEncoder, text: string, file: string, line: number): ArrayLike<number> {
  let ids: ArrayLike<number>;
  try {
    ids = encoder.encode(text);
  } catch (error) {
    if (error instanceof NautilusError) throw error;
    throw new DataError("data", `expected to tokenise ${file} line ${line}, got ${messageOf(error)}`, {
      cause: error,
      fields: { file, line },
    });
  }
  for (let i = 0; i < ids.length; i++) {
    if (ids[i] < encoder.vocabSize) continue;
    throw new DataError(
      "data",
      `expected ids below the vocabulary of ${encoder.vocabSize} for ${file} line ${line}, got ${ids[i]}`,
      { hint: "the tokenizer says a smaller vocabulary than it uses", fields: { file, line } },
    );
  }
  return ids;
}
