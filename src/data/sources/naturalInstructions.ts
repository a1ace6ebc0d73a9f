/**
 * Natural Instructions v2: a JSON file per task with Definition, Positive Examples and Instances. A document is one
 * instance: definition, some worked examples, the input, and its first output. The first 100 instances of a test task are
 * the official test set and can be held out.
 * Source: Wang et al., "Super-NaturalInstructions", 2022; allenai/natural-instructions.
 */
import { basename } from "node:path";
import { z } from "zod";
import { DataError, messageOf, readText } from "../../base/index.ts";
import type { FileSourceOf } from "./schema.ts";
import type { ParsedDocument, RawUnit } from "./unit.ts";
import { decodeUtf8 } from "./utf8.ts";

const numTestInstances = 100;

const exampleSchema = z.object({ input: z.string(), output: z.string() });
// Other keys (Contributors, Domains, ...) are the data set's business, not a slip of the user's.
const taskSchema = z.object({
  Definition: z.union([z.string(), z.array(z.string()).min(1)]),
  "Positive Examples": z.array(exampleSchema).default([]),
  Instances: z.array(
    z.object({ input: z.string(), output: z.union([z.string(), z.array(z.string()).min(1)]) }),
  ),
});

/** A source whose list of test tasks, where it was a file, is read. Throws FileError. */
export function withTestTasks(
  source: FileSourceOf<"natural-instructions">,
): FileSourceOf<"natural-instructions"> {
  if (typeof source.testTasks !== "string") return source;
  const names = readText("data", source.testTasks).split(/\s+/);
  return { ...source, testTasks: names.filter((name) => name !== "") };
}

/** The documents of a unit that holds a whole task file. Throws DataError. */
export function* parseNaturalInstructions(
  unit: RawUnit,
  source: FileSourceOf<"natural-instructions">,
): Generator<ParsedDocument> {
  const { file } = unit;
  const json = decodeUtf8(unit.bytes, { file, line: 1, invalidUtf8: source.invalidUtf8 });
  if (json === undefined) return;
  const task = parseTask(file, json);
  const isTestTask =
    Array.isArray(source.testTasks) &&
    source.testTasks.includes(basename(file).replace(/\.json(\.(gz|zst))?$/, ""));
  const onlyTest = source.heldOut === "only";
  if (onlyTest && !isTestTask) return;
  const begin = isTestTask && !onlyTest ? numTestInstances : 0;
  const end = Math.min(
    onlyTest ? numTestInstances : task.Instances.length,
    begin + (source.maxInstances ?? Infinity),
  );
  const preamble = preambleOf(task, source.numExamples);
  for (const instance of task.Instances.slice(begin, end)) {
    const output = typeof instance.output === "string" ? instance.output : instance.output[0];
    const text = `${preamble}Now complete the following example -\nInput: ${instance.input}\nOutput: ${output}`;
    yield { text: text.toWellFormed(), line: 1 };
  }
}

function preambleOf(task: z.output<typeof taskSchema>, numExamples: number): string {
  const definition = typeof task.Definition === "string" ? task.Definition : task.Definition.join("\n");
  const examples = task["Positive Examples"]
    .slice(0, numExamples)
    .map(({ input, output }, i) => `Positive Example ${i + 1} -\nInput: ${input}\nOutput: ${output}\n\n`);
  return `Definition: ${definition}\n\n${examples.join("")}`;
}

function parseTask(file: string, json: string): z.output<typeof taskSchema> {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch (error) {
    throw new DataError("data", `expected JSON in ${file}, got ${messageOf(error)}`, { cause: error });
  }
  const result = taskSchema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  throw new DataError(
    "data",
    `expected a task of Natural Instructions in ${file}, got ${issue.path.join(".") || "a file"}: ${issue.message}`,
    { hint: "a task file has Definition, Positive Examples and Instances" },
  );
}
