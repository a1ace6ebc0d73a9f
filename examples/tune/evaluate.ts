/**
 * Before and after: how many of the held-out questions the model answers word for word, as the base and as tuned.
 *   node examples/tune/evaluate.ts [base] [tuned]
 */
import { readFileSync } from "node:fs";
import { openEngine } from "../../src/app/api/openEngine.ts";
import { parseSampling } from "../../src/infer/index.ts";

const [base = "runs/demo", tuned = "runs/pirate"] = process.argv.slice(2);
const rows = readFileSync(new URL("pirate-held-out.jsonl", import.meta.url), "utf8")
  .trim()
  .split("\n")
  .map((line) => JSON.parse(line) as { input: string; output: string });

for (const [name, model] of Object.entries({ before: base, after: tuned })) {
  await using open = await openEngine({ model, maxSequences: rows.length });
  const { engine, tokenizer } = open;
  const answers = await Promise.all(
    rows.map(async ({ input }) => {
      // As the data was encoded: the beginning of a text, then the question.
      const opening = tokenizer.bosId === undefined ? [] : [tokenizer.bosId];
      const prompt = [...opening, ...tokenizer.encode(input)];
      let answer = "";
      for await (const event of engine.generate({
        prompt,
        sampling: parseSampling({ maxTokens: 32, temperature: 0 }),
      }))
        if (event.type !== "prompt") answer += event.text;
      return answer;
    }),
  );
  const numRight = rows.filter(({ output }, i) => answers[i].trim() === output).length;
  console.log(
    `${name}: ${numRight} of ${rows.length} held-out questions answered word for word; for example`,
  );
  for (const i of [0, 1, 2])
    console.log(`  ${rows[i].input.replace("\n", " ")} ${JSON.stringify(answers[i].trim().slice(0, 70))}`);
}
