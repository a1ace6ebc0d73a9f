/** Bytes to text, with a sentence for bytes that are not UTF-8. A byte order mark at the start of a file is dropped. */
import { Buffer, isUtf8 } from "node:buffer";
import { DataError } from "../../base/index.ts";
import { linesOf } from "./lines.ts";

export interface DecodeOptions {
  readonly file: string;
  /** The line, from 1, that the first byte stands on. */
  readonly line: number;
  readonly invalidUtf8: "error" | "replace" | "skip";
}

/** The text of `bytes`; undefined where they are not UTF-8 and are to be skipped. Throws DataError. */
export function decodeUtf8(bytes: Uint8Array, options: DecodeOptions): string | undefined {
  if (options.invalidUtf8 !== "replace" && !isUtf8(bytes)) {
    if (options.invalidUtf8 === "skip") return undefined;
    throw invalid(bytes, options);
  }
  const begin = options.line === 1 && bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf ? 3 : 0;
  return Buffer.from(bytes.buffer, bytes.byteOffset + begin, bytes.byteLength - begin).toString("utf8");
}

function invalid(bytes: Uint8Array, options: DecodeOptions): DataError {
  let { line } = options;
  for (const next of linesOf({ bytes, firstLine: options.line })) {
    line = next.line;
    if (!isUtf8(next.bytes)) break;
  }
  return new DataError("data", `expected UTF-8 in ${options.file} line ${line}, got bytes that are not`, {
    hint: 'save the file as UTF-8, or set invalidUtf8 to "replace" or "skip"',
    fields: { file: options.file, line },
  });
}
