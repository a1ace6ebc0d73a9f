/**
 * `defineTask`: from a task's typed record to something that opens data, asks and scores. The type of a row ends here: what comes out
 * are requests and scores.
 */
import { ConfigError, DataError, invariant } from "../base/index.ts";
import type { DataStore } from "./data/store.ts";
import { PythonRandom } from "./python/random.ts";
import { metricsOf, requestsOf, scoreSample } from "./rules/index.ts";
import type { Ability, OpenTask, OpenTaskOptions, Sample, Task, TaskDefinition, TaskGroup } from "./task.ts";

export function defineTask<Row>(definition: TaskDefinition<Row>): Task {
  const { name, title, version, source, split, shots, request, variantOf } = definition;
  return {
    name,
    title,
    version,
    source,
    split,
    variantOf,
    numShots: shots?.count ?? 0,
    ability: abilityOf(request.kind),
    metrics: metricsOf(request),
    runsCode: request.kind === "generate" && request.runsCode === true,
    describe: ({ model, temperature }) => ({
      ...definition.describe?.(model.tokenizer),
      ...(request.kind === "generate" && (request.temperature ?? 0) > 0
        ? { temperature: temperature ?? request.temperature, repeats: request.repeats ?? 1 }
        : {}),
    }),
    open: (store, options) => openTask(definition, store, options),
  };
}

export function defineGroup(group: Omit<TaskGroup, "version"> & { version?: number }): TaskGroup {
  return { version: 1, ...group };
}

function abilityOf(kind: "choice" | "continuation" | "rolling" | "generate"): Ability {
  return kind === "rolling" || kind === "generate" ? kind : "loglikelihood";
}

async function openTask<Row>(
  definition: TaskDefinition<Row>,
  store: DataStore,
  options: OpenTaskOptions,
): Promise<OpenTask> {
  const all = await store.rows(definition.source, definition.split, definition.only);
  if (all.length === 0) {
    throw new DataError("eval", `expected rows for ${definition.name}, got none`, {
      hint:
        definition.only === undefined
          ? "the file is empty"
          : `no row has ${definition.only.field} = ${definition.only.value}`,
    });
  }
  const numShots = options.numShots ?? definition.shots?.count ?? 0;
  const { pool, numSkipped, drawsOneMore } = await examplePool(definition, store, { all, numShots });
  const rows = all.slice(numSkipped);
  const examples = drawExamples(definition, { rows, pool, numShots, seed: options.seed, drawsOneMore });
  return {
    numSamples: rows.length,
    sample: (index) =>
      makeSample(definition, { row: rows[index], index: index + numSkipped }, examples[index], options),
  };
}

interface ExamplePool<Row> {
  pool: readonly Row[];
  /** First rows of the scored split that serve as examples and are not scored. */
  numSkipped: number;
  /** One more is drawn, and the question itself left out. */
  drawsOneMore: boolean;
}

async function examplePool<Row>(
  { name, shots, source, split, only, request }: TaskDefinition<Row>,
  store: DataStore,
  { all, numShots }: { all: readonly Row[]; numShots: number },
): Promise<ExamplePool<Row>> {
  if (numShots === 0) return { pool: [], numSkipped: 0, drawsOneMore: false };
  if (request.kind === "rolling")
    throw new ConfigError("eval", `expected no examples for ${name}, got ${numShots}`, {
      hint: "it scores whole texts",
    });
  if (shots?.examples !== undefined) {
    if (shots.examples.length < numShots) {
      throw new ConfigError(
        "eval",
        `expected at most ${shots.examples.length} examples for ${name}, got ${numShots}`,
      );
    }
    return { pool: shots.examples, numSkipped: 0, drawsOneMore: false };
  }
  const from =
    shots?.split ?? ["train", "validation", "test"].find((candidate) => candidate in source.splits) ?? split;
  if (from === split) return { pool: all, numSkipped: 0, drawsOneMore: true };
  if (shots?.fromScoredSplit === true && !(await store.has(source, from)))
    return { pool: all.slice(0, numShots), numSkipped: numShots, drawsOneMore: false };
  const pool = (await store.rows(source, from, only)).slice(shots?.skip ?? 0);
  // The reference harness also draws one more where a task names neither a test split nor one for examples: it takes the two for
  // the same. Its examples are reproduced, so this is too.
  return { pool, numSkipped: 0, drawsOneMore: shots?.split === undefined && split !== "test" };
}

/** The examples of each row, drawn in the rows' order from one stream as the reference harness does. */
function drawExamples<Row>(
  { name, shots }: TaskDefinition<Row>,
  {
    rows,
    pool,
    numShots,
    seed,
    drawsOneMore,
  }: { rows: readonly Row[]; pool: readonly Row[]; numShots: number; seed: number; drawsOneMore: boolean },
): readonly (readonly Row[])[] {
  if (numShots === 0) return rows.map(() => []);
  const numNeeded = drawsOneMore ? numShots + 1 : numShots;
  if (pool.length < numNeeded)
    throw new ConfigError("eval", `expected at most ${pool.length} examples for ${name}, got ${numShots}`);
  const isFirst = shots?.order === "first" || shots?.examples !== undefined;
  const random = new PythonRandom(seed);
  return rows.map((row) => {
    const others = (drawn: readonly Row[]): readonly Row[] =>
      drawsOneMore ? drawn.filter((example) => !isSame(example, row)).slice(0, numShots) : drawn;
    if (isFirst) return others(pool.slice(0, numNeeded));
    const drawn = others(random.sampleIndices(pool.length, numNeeded).map((place) => pool[place]));
    if (drawn.length === numShots) return drawn;
    // Rows that occur more than once were drawn together with the question itself.
    const rest = pool.filter((example) => !isSame(example, row));
    return random.sampleIndices(rest.length, numShots).map((place) => rest[place]);
  });
}

function isSame(a: unknown, b: unknown): boolean {
  return a === b || JSON.stringify(a) === JSON.stringify(b);
}

function makeSample<Row>(
  definition: TaskDefinition<Row>,
  { row, index }: { row: Row; index: number },
  examples: readonly Row[],
  options: OpenTaskOptions,
): Sample {
  const before = beginningOf(definition, row, examples, options);
  const requests = requestsOf(definition, { row, before, index, options });
  return {
    index,
    document: row,
    target: definition.answer(row),
    requests,
    score: (answers) => {
      invariant(answers.length === requests.length, "an answer for each request");
      return scoreSample(definition.request, { row, answers });
    },
  };
}

/** What stands before the question: the preamble and the examples, fewer of them where all would not fit. */
function beginningOf<Row>(
  definition: TaskDefinition<Row>,
  row: Row,
  examples: readonly Row[],
  { model }: OpenTaskOptions,
): string {
  const { preamble, prompt, answer, delimiter = " ", separator = "\n\n", shots } = definition;
  const texts = examples.map((example) => prompt(example) + delimiter + answer(example) + separator);
  const opening = preamble?.(row) ?? "";
  const { tokenizer, maxSequenceTokens } = model;
  if (shots?.dropWhenTooLong !== true || tokenizer === undefined) return opening + texts.join("");
  for (let count = texts.length; count > 0; count--) {
    const beginning = opening + texts.slice(0, count).join("");
    // One token for the answer. Tokens are at most bytes, which are quicker to count.
    const whole = beginning + prompt(row);
    if (Buffer.byteLength(whole) < maxSequenceTokens) return beginning;
    if (tokenizer.encode(whole).length < maxSequenceTokens) return beginning;
  }
  return opening;
}
