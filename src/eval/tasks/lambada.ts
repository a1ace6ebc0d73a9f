/** LAMBADA (Paperno et al., 2016), the text that OpenAI published: the last word of a passage. */
import { z } from "zod";
import { usualFiles } from "../data/store.ts";
import { defineTask } from "../define.ts";
import { strip } from "../python/text.ts";

const row = z.object({ text: z.string().regex(/ /, "expected a text of at least two words") });
type Row = z.output<typeof row>;

export const lambadaSource = {
  folder: "lambada",
  splits: { test: ["lambada_test.jsonl", ...usualFiles("test", "default")] },
  row,
  homepage: "https://openaipublic.blob.core.windows.net/gpt-2/data/lambada_test.jsonl",
  licence: "modified MIT (the text: CC BY 4.0)",
  hub: { repository: "EleutherAI/lambada_openai", configuration: "default" },
};

// Only the space character parts words here: seven passages have a newline inside the last one.
const beginning = ({ text }: Row): string => text.slice(0, text.lastIndexOf(" "));
const lastWord = ({ text }: Row): string => text.slice(text.lastIndexOf(" ") + 1);

export const lambada = defineTask<Row>({
  name: "lambada_openai",
  title: "LAMBADA",
  version: 1,
  source: lambadaSource,
  split: "test",
  prompt: beginning,
  answer: lastWord,
  request: { kind: "continuation", continuation: (doc) => ` ${lastWord(doc)}` },
});

const straightQuotes = (text: string): string => text.replace(/[“”]/gu, '"').replace(/[’‘]/gu, "'");

export const lambadaNvidia = defineTask<Row>({
  name: "lambada_openai_nvidia",
  title: "LAMBADA",
  version: 1,
  variantOf: "lambada_openai",
  source: lambadaSource,
  split: "test",
  prompt: (doc) => `\n${strip(straightQuotes(beginning(doc)))}`,
  answer: (doc) => straightQuotes(lastWord(doc)),
  request: {
    kind: "continuation",
    continuation: (doc) => ` ${straightQuotes(lastWord(doc))}`,
    encoding: "apart",
  },
});
