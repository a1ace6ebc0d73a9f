import type { OpenTaskOptions } from "../task.ts";

/** A question in its place. */
export interface Question<Row> {
  row: Row;
  /** Preamble and examples. */
  before: string;
  index: number;
  options: OpenTaskOptions;
}
