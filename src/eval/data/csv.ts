/** Comma- or tab-separated values as RFC 4180 writes them: quoted fields may hold separators, newlines and doubled quotes. */
import { DataError } from "../../base/index.ts";

export interface CsvRecord {
  fields: string[];
  /** The line, from 1, that the record begins on. */
  line: number;
}

/** The records of a text. Throws DataError for a quote that nothing closes. */
export function parseCsv(text: string, separator: "," | "\t", path: string): CsvRecord[] {
  const records: CsvRecord[] = [];
  let at = text.charCodeAt(0) === 0xfeff ? 1 : 0;
  let line = 1;
  while (at < text.length) {
    const record: CsvRecord = { fields: [], line };
    for (let isOpen = true; isOpen;) {
      const field = text[at] === '"' ? quoted(text, at, { path, line }) : bare(text, at, separator);
      record.fields.push(field.value);
      line += field.numNewlines;
      at = field.end;
      isOpen = text[at] === separator;
      if (isOpen) at++;
    }
    if (text[at] === "\r") at++;
    if (text[at] === "\n") at++;
    line++;
    // An empty line is no record.
    if (record.fields.length > 1 || record.fields[0] !== "") records.push(record);
  }
  return records;
}

interface Field {
  value: string;
  end: number;
  numNewlines: number;
}

function bare(text: string, begin: number, separator: string): Field {
  let end = begin;
  while (end < text.length && text[end] !== separator && text[end] !== "\n") end++;
  const last = text[end] !== separator && text[end - 1] === "\r" && end > begin ? end - 1 : end;
  return { value: text.slice(begin, last), end: last, numNewlines: 0 };
}

function quoted(text: string, begin: number, place: { path: string; line: number }): Field {
  let value = "";
  for (let at = begin + 1; ;) {
    const close = text.indexOf('"', at);
    if (close === -1) {
      throw new DataError(
        "eval",
        `expected a closing quote in ${place.path} line ${place.line}, got the end of the file`,
      );
    }
    value += text.slice(at, close);
    if (text[close + 1] !== '"') {
      // What stands between a closing quote and the separator belongs to the field, as in Python's reader.
      let end = close + 1;
      while (end < text.length && !",\t\r\n".includes(text[end])) end++;
      value += text.slice(close + 1, end);
      return { value, end, numNewlines: value.split("\n").length - 1 };
    }
    value += '"';
    at = close + 2;
  }
}
