/** The ids of the texts in FOLDER/texts.json by the tokenizer in FOLDER, in both readings of special tokens; see tokenizer_ids.py. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { loadTokenizer } from "../../src/text/index.ts";

const [folder] = process.argv.slice(2);
const tokenizer = loadTokenizer(folder);
const texts = z.array(z.string()).parse(JSON.parse(readFileSync(join(folder, "texts.json"), "utf8")));
for (const text of texts) {
  const ids = [
    tokenizer.encode(text, { specialTokens: "text" }),
    tokenizer.encode(text, { specialTokens: "parse" }),
  ];
  process.stdout.write(`${JSON.stringify(ids.map((list) => [...list]))}\n`);
}
