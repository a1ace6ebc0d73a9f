/**
 * A model in a program: `npx node examples/in-process.ts demo/nautilus-demo-20m`. The model computes in a worker thread; calls made at the same time
 * share its steps.
 */
import { argv, exit, stdout } from "node:process";
import { load } from "../src/index.ts";

const [folder] = argv.slice(2);
if (folder === undefined) {
  console.error("expected a run, a checkpoint or a model folder, got none (nautilus demo trains one)");
  exit(2);
}
await using model = await load(folder);

// As it is written.
for await (const text of model.stream("export function ", { maxTokens: 60, temperature: 0.7, seed: 1 }))
  stdout.write(text);
stdout.write("\n---\n");

// Several at once, with what the model thought of each token.
const answers = await Promise.all(
  ["const ", "import "].map((prompt) => model.generate(prompt, { maxTokens: 20, numLogprobs: 3 })),
);
for (const { text, tokens } of answers) console.log(JSON.stringify(text), tokens[0]?.mostLikely);

// Only what a schema allows.
const schema = { type: "object", properties: { ok: { type: "boolean" } }, required: ["ok"] };
const { text } = await model.generate("Answer: ", { constraint: { kind: "json-schema", schema } });
console.log(JSON.parse(text));
