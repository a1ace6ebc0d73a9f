/**
 * Sources to documents: `readUnits` cuts the files into raw units (one reader can feed many workers), `parseUnit` makes
 * documents of a unit, `readDocuments` does both for whoever wants the texts one after the other.
 */
import { openSync, closeSync, fstatSync, readSync } from "node:fs";
import { withFileErrors } from "../../base/index.ts";
import { readBytes } from "./bytes.ts";
import { listFiles, type SourceFile } from "./files.ts";
import { parseFlan } from "./flan.ts";
import { parseJsonLines } from "./jsonLines.ts";
import { lineRuns } from "./lines.ts";
import { parseNaturalInstructions } from "./naturalInstructions.ts";
import { parseP3 } from "./p3.ts";
import type { Source } from "./schema.ts";
import { parseText, textPieceBytes, textPieces } from "./textFile.ts";
import type { ParsedDocument, RawUnit, SourceDocument } from "./unit.ts";

/** All documents of `sources`, in order. Throws ConfigError, DataError, FileError. */
export async function* readDocuments(sources: readonly Source[]): AsyncGenerator<SourceDocument> {
  for (const file of listFiles(sources)) {
    for await (const unit of readUnits(file)) {
      for (const document of parseUnit(unit)) {
        yield { ...document, file: unit.file, isContinued: !unit.endsDocument };
      }
    }
  }
}

/** The documents of a unit, or its piece of one. Throws DataError. */
export function parseUnit(unit: RawUnit): Iterable<ParsedDocument> {
  const { source } = unit;
  switch (source.kind) {
    case "json-lines":
      return parseJsonLines(unit, source);
    case "text":
      return parseText(unit, source);
    case "flan":
      return parseFlan(unit, source);
    case "p3":
      return parseP3(unit, source);
    case "natural-instructions":
      return parseNaturalInstructions(unit, source);
  }
}

/** The units of one file; `onRead` hears of the bytes taken from the disk. Throws DataError, FileError. */
export async function* readUnits(
  { file, source, sizeBytes }: SourceFile,
  onRead: (numBytes: number) => void = () => {},
): AsyncGenerator<RawUnit> {
  const whole = { source, file, startsDocument: true, endsDocument: true };
  if (source.kind === "natural-instructions") {
    const chunks: Uint8Array[] = [];
    for await (const chunk of readBytes(file, onRead)) chunks.push(chunk);
    if (chunks.length > 0) yield { ...whole, firstLine: 1, bytes: Uint8Array.from(Buffer.concat(chunks)) };
    return;
  }
  if (source.kind === "text" && source.documents === "file") {
    if (sizeBytes <= textPieceBytes && !/\.(gz|zst)$/i.test(file)) {
      const bytes = readSmall(file);
      onRead(bytes.length);
      if (bytes.length > 0 && !(source.invalidUtf8 === "skip" && looksBinary(bytes))) {
        yield { ...whole, firstLine: 1, bytes };
      }
      return;
    }
    for await (const piece of textPieces(readBytes(file, onRead))) yield { source, file, ...piece };
    return;
  }
  for await (const run of lineRuns(file, readBytes(file, onRead))) yield { ...whole, ...run };
}

/** Synchronous: a source tree has many small files, and a stream for each would cost more than its bytes. */
function readSmall(file: string): Uint8Array {
  return withFileErrors("data", "a readable file", file, () => {
    const descriptor = openSync(file, "r");
    try {
      const bytes = new Uint8Array(fstatSync(descriptor).size);
      let length = 0;
      while (length < bytes.length) {
        const count = readSync(descriptor, bytes, length, bytes.length - length, null);
        if (count === 0) break;
        length += count;
      }
      return bytes.slice(0, length);
    } finally {
      closeSync(descriptor);
    }
  });
}

function looksBinary(bytes: Uint8Array): boolean {
  return bytes.subarray(0, 8192).includes(0);
}
