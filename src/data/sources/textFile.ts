/**
 * Plain text: a file is one document, or each of its lines is. A large file is read in pieces cut at line ends, at places
 * that depend on its content alone; its tokens are those of its pieces one after the other.
 */
import { Buffer } from "node:buffer";
import { countLines, linesOf } from "./lines.ts";
import type { FileSourceOf } from "./schema.ts";
import type { ParsedDocument, RawUnit } from "./unit.ts";
import { decodeUtf8 } from "./utf8.ts";

export const textPieceBytes = 1 << 20;
const newline = 10;

/** A piece of a text file, in memory of its own. */
export interface TextPiece {
  readonly bytes: Uint8Array;
  readonly firstLine: number;
  readonly startsDocument: boolean;
  readonly endsDocument: boolean;
}

/** The pieces of one document. Nothing for an empty file. */
export async function* textPieces(
  chunks: AsyncIterable<Uint8Array>,
  pieceBytes = textPieceBytes,
): AsyncGenerator<TextPiece> {
  let pending: Buffer = Buffer.alloc(0);
  let firstLine = 1;
  let startsDocument = true;
  const take = (length: number, endsDocument: boolean): TextPiece => {
    const bytes = new Uint8Array(length);
    bytes.set(pending.subarray(0, length));
    const piece = { bytes, firstLine, startsDocument, endsDocument };
    pending = pending.subarray(length);
    firstLine += countLines(bytes);
    startsDocument = false;
    return piece;
  };
  for await (const chunk of chunks) {
    pending = Buffer.concat([pending, chunk]);
    // Something stays for the last piece, which ends the document.
    while (pending.length > pieceBytes) yield take(cutBefore(pending, pieceBytes), false);
  }
  if (pending.length > 0) yield take(pending.length, true);
}

/** The end of the last line within `limit` bytes; without one, of the last whole character. */
function cutBefore(bytes: Buffer, limit: number): number {
  const lineEnd = bytes.lastIndexOf(newline, limit - 1) + 1;
  if (lineEnd > 0) return lineEnd;
  let cut = limit;
  while (cut > limit - 4 && cut > 1 && (bytes[cut] & 0xc0) === 0x80) cut--;
  return cut;
}

/** The documents, or the piece of one, in a unit of text. Throws DataError. */
export function* parseText(unit: RawUnit, source: FileSourceOf<"text">): Generator<ParsedDocument> {
  const { file, firstLine } = unit;
  const { invalidUtf8 } = source;
  if (source.documents === "file") {
    const text = decodeUtf8(unit.bytes, { file, line: firstLine, invalidUtf8 });
    if (text !== undefined) yield { text, line: firstLine };
    return;
  }
  for (const { bytes, line } of linesOf(unit)) {
    const text = decodeUtf8(bytes, { file, line, invalidUtf8 });
    if (text !== undefined) yield { text, line };
  }
}
