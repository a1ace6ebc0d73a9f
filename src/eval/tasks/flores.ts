/**
 * Translation in the style of FLORES-200 (NLLB team, 2022): the same sentences in each language, one sentence a line, into English
 * and out of it, after five examples of the development split. Judged by BLEU and chrF.
 */
import { basename, dirname, join } from "node:path";
import { z } from "zod";
import { defineTask } from "../define.ts";
import { mapAnswers, takeFirst } from "../filters.ts";
import type { Aggregation } from "../metrics/aggregate.ts";
import { strip } from "../python/text.ts";
import type { GenerationMetric, Task } from "../task.ts";

const row = z.object({ source: z.string(), target: z.string() });
type Row = z.output<typeof row>;

const languages: Readonly<Record<string, string>> = {
  arb_Arab: "Arabic",
  ben_Beng: "Bengali",
  deu_Latn: "German",
  eng_Latn: "English",
  fin_Latn: "Finnish",
  fra_Latn: "French",
  hin_Deva: "Hindi",
  ind_Latn: "Indonesian",
  jpn_Jpan: "Japanese",
  kor_Hang: "Korean",
  rus_Cyrl: "Russian",
  spa_Latn: "Spanish",
  swh_Latn: "Swahili",
  zho_Hans: "Chinese",
};

const corpusMetric = (aggregation: Aggregation): GenerationMetric<Row> => ({
  aggregation,
  higherIsBetter: true,
  isShare: false,
  judge: (hypothesis, { target }) => ({ hypothesis, reference: target }),
});

function translationTask(from: string, to: string): Task {
  return defineTask<Row>({
    name: `flores_${from}-${to}`,
    title: `${languages[from]} to ${languages[to]}`,
    version: 1,
    source: {
      folder: "flores",
      splits: { dev: [`dev/${from}.dev`], devtest: [`devtest/${from}.devtest`] },
      aligned: {
        from: "source",
        to: "target",
        file: (path: string) => join(dirname(path), basename(path).replace(from, to)),
      },
      row,
      homepage: "https://github.com/facebookresearch/flores (flores200_dataset)",
      licence: "CC BY-SA 4.0",
    },
    split: "devtest",
    prompt: ({ source }) => `${languages[from]} phrase: ${source}\n${languages[to]} phrase:`,
    answer: ({ target }) => target,
    shots: { count: 5, split: "dev", order: "first" },
    request: {
      kind: "generate",
      stop: ["\n"],
      maxNewTokens: 256,
      filters: { none: [takeFirst(), mapAnswers(strip)] },
      metrics: { bleu: corpusMetric("bleu"), chrf: corpusMetric("chrf") },
    },
  });
}

export const floresTasks: readonly Task[] = Object.keys(languages)
  .filter((language) => language !== "eng_Latn")
  .flatMap((language) => [translationTask(language, "eng_Latn"), translationTask("eng_Latn", language)]);
