/** WikiText-2 (Merity et al., 2016), whole articles: perplexity of words and bytes, bits per byte. */
import { z } from "zod";
import { usualFiles } from "../data/store.ts";
import { defineTask } from "../define.ts";

const row = z.object({ page: z.string() });
type Row = z.output<typeof row>;

/** What the data set's tokenisation replaced, in the reference harness's order; the second does nothing, as there. */
const replacements: readonly (readonly [RegExp, string])[] = [
  [/s '/g, "s'"],
  [/\/' [0-9]\//g, "/'[0-9]/"],
  [/ @-@ /g, "-"],
  [/ @,@ /g, ","],
  [/ @\.@ /g, "."],
  [/ : /g, ": "],
  [/ ; /g, "; "],
  [/ \. /g, ". "],
  [/ ! /g, "! "],
  [/ \? /g, "? "],
  [/ , /g, ", "],
  [/\(\s*([^)]*?)\s*\)/g, "($1)"],
  [/\[\s*([^\]]*?)\s*\]/g, "[$1]"],
  [/\{\s*([^}]*?)\s*\}/g, "{$1}"],
  [/"\s*([^"]*?)\s*"/g, '"$1"'],
  [/'\s*([^']*?)\s*'/g, "'$1'"],
  [/= = = =/g, "===="],
  [/= = =/g, "==="],
  [/= =/g, "=="],
  [/ ° /g, "°"],
  [/ \n/g, "\n"],
  [/\n /g, "\n"],
  [/ N /g, " 1 "],
  [/ 's/g, "'s"],
];

export function detokenize(page: string): string {
  return replacements.reduce((text, [pattern, replacement]) => text.replace(pattern, replacement), page);
}

const files = (split: string): string[] => usualFiles(split, "wikitext-2-raw-v1");

export const wikitext = defineTask<Row>({
  name: "wikitext",
  title: "WikiText-2",
  version: 2,
  source: {
    folder: "wikitext",
    splits: { train: files("train"), validation: files("validation"), test: files("test") },
    row,
    homepage: "https://huggingface.co/datasets/EleutherAI/wikitext_document_level",
    licence: "CC BY-SA 3.0",
    hub: { repository: "EleutherAI/wikitext_document_level", configuration: "wikitext-2-raw-v1" },
  },
  split: "test",
  prompt: () => "",
  answer: ({ page }) => page,
  request: { kind: "rolling", text: ({ page }) => detokenize(page), original: ({ page }) => page },
});
