/**
 * Before and after: how many of the held-out questions the model answers word for word, as the base and with the adapter.
 *   npx node examples/tune/evaluate.ts [base] [adapter]
 */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { openEngine } from "../../src/app/api/openEngine.ts";
import { parseSampling } from "../../src/infer/index.ts";

const demonstration = fileURLToPath(new URL("../../demo/nautilus-demo-20m", import.meta.url));
const [model = demonstration, tuned = "runs/pirate"] = process.argv.slice(2);
const rows = readFileSync(new URL("pirate-held-out.jsonl", import.meta.url), "utf8")
  .trim()
  .split("\n")
  .map((line) => JSON.parse(line) as { input: string; output: string });

for (const [name, adapter] of Object.entries({ before: undefined, after: tuned })) {
  await using open = await openEngine({ model, adapter, maxSequences: rows.length });
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
