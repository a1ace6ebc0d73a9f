/**
 * What passes between reading and parsing: raw units, which a worker can parse alone and in any order, and the documents in
 * them. Units are cut by content alone, so that the documents do not depend on who parses what.
 */
import type { FileSource } from "./schema.ts";

/** A run of bytes of one file. Structured-cloneable. */
export interface RawUnit {
  readonly source: FileSource;
  readonly file: string;
  /** The line, from 1, that the first byte stands on. */
  readonly firstLine: number;
  readonly bytes: Uint8Array;
  /** False when the unit continues the document of the unit before; such units hold one piece of text each. */
  readonly startsDocument: boolean;
  /** False when the next unit continues this one's last document. */
  readonly endsDocument: boolean;
}

export interface ParsedDocument {
  readonly text: string;
  /** The line, from 1, of its record in the file. */
  readonly line: number;
}

/** A document, or with `isContinued` a piece of a large one that the next piece continues. */
export interface SourceDocument extends ParsedDocument {
  readonly file: string;
  readonly isContinued: boolean;
}
