/**
 * From what a model wrote to what is judged, in steps: each takes all answers to one question and gives back as many or fewer. The
 * behaviour, oddities included, is the reference harness's (`lm_eval/filters/extraction.py`, `selection.py`).
 */
import { strip } from "./python/text.ts";

export type Filter<Row> = (texts: readonly string[], row: Row) => readonly string[];

/** What stands for an answer in which nothing was found; it votes like an answer. */
export const invalidAnswer = "[invalid]";

/**
 * Of each answer the match of `pattern` (with the flag g): its first non-empty group, or all of it. `which`: the first match or
 * the last. Without a match: "[invalid]".
 */
export function extract<Row>(pattern: RegExp, which: "first" | "last" = "first"): Filter<Row> {
  return (texts) =>
    texts.map((text) => {
      const match = [...text.matchAll(pattern)].at(which === "first" ? 0 : -1);
      if (match === undefined) return invalidAnswer;
      const [whole, ...groups] = match;
      // One group stands for itself, even when empty; of several the first with text.
      if (groups.length === 0) return strip(whole);
      const found = groups.length === 1 ? (groups[0] ?? "") : groups.find((group) => (group ?? "") !== "");
      return strip(found ?? invalidAnswer);
    });
}

/** The first `count` answers. */
export function takeFirst<Row>(count = 1): Filter<Row> {
  return (texts) => texts.slice(0, count);
}

/** The most frequent answer; of several, the one seen first. Texts are compared as they are. */
export function majorityVote<Row>(): Filter<Row> {
  return (texts) => {
    const votes = new Map<string, number>();
    for (const text of texts) votes.set(text, (votes.get(text) ?? 0) + 1);
    const most = Math.max(...votes.values());
    const winner = [...votes].find(([, count]) => count === most);
    return winner === undefined ? [] : [winner[0]];
  };
}

/** Each answer changed alone. */
export function mapAnswers<Row>(change: (text: string, row: Row) => string): Filter<Row> {
  return (texts, row) => texts.map((text) => change(text, row));
}
