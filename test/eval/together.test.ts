/** Tasks share the model: a few at a time, their samples, progress and errors kept apart. */
import { describe, expect, it } from "vitest";
import { DataStore, evaluate, TaskRegistry } from "../../src/eval/index.ts";
import type { OpenTask, Task } from "../../src/eval/index.ts";
import { invariant } from "../../src/base/index.ts";
import type { LanguageModel, Loglikelihood } from "../../src/text/index.ts";

const template = new TaskRegistry().task("boolq");
invariant(template !== undefined, "a task to change");

/** Samples of one request each; `moreRequests` is what later samples have besides. */
function madeTask(name: string, numSamples: number, moreRequests = 0): Task {
  invariant(template !== undefined, "a task to change");
  const open: OpenTask = {
    numSamples,
    sample: (index) => ({
      index,
      document: {},
      target: "",
      requests: Array.from({ length: 1 + (index === 0 ? 0 : moreRequests) }, () => ({
        kind: "loglikelihood",
        context: `${name} ${index}`,
        continuation: "!",
      })),
      score: (answers) => ({
        values: {
          logprob: answers.reduce((sum, answer) => sum + ("logprob" in answer ? answer.logprob : 0), 0),
        },
        prediction: "",
        isCorrect: undefined,
      }),
    }),
  };
  return { ...template, name, metrics: [], describe: () => ({}), open: () => Promise.resolve(open) };
}

/** Answers with the length of the context, some turns later; `fails` names a task. */
class SlowModel implements LanguageModel {
  readonly name = "slow";
  readonly tokenizer = undefined;
  readonly maxSequenceTokens = 100;
  readonly asked: string[] = [];
  mostAtOnce = 0;
  #numNow = 0;
  readonly #fails: string | undefined;
  constructor(fails?: string) {
    this.#fails = fails;
  }
  async loglikelihood(
    requests: Parameters<LanguageModel["loglikelihood"]>[0],
    options: Parameters<LanguageModel["loglikelihood"]>[1] = {},
  ): Promise<Loglikelihood[]> {
    this.mostAtOnce = Math.max(this.mostAtOnce, ++this.#numNow);
    for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve));
    this.#numNow--;
    return requests.map(({ context }, done) => {
      const text = String(context);
      this.asked.push(text);
      if (this.#fails !== undefined && text.startsWith(this.#fails)) throw new Error("broken");
      options.onProgress?.(done + 1, requests.length);
      return { logprob: -text.length, isGreedy: false, numTokens: 1 };
    });
  }
  generate(): never {
    throw new Error("not asked");
  }
  loglikelihoodRolling(): Promise<never> {
    return Promise.reject(new Error("not asked"));
  }
}

const tasks = [madeTask("a", 5), madeTask("bb", 3), madeTask("ccc", 4)];
const store = new DataStore({ folders: [] });

describe("tasks at once", () => {
  it("two run together, in order, each with its own samples", async () => {
    const model = new SlowModel();
    const counts: number[] = [];
    const result = await evaluate(model, { tasks, groups: [] }, store, {
      requestsAtOnce: 2,
      onProgress: ({ numDoneRequests }) => counts.push(numDoneRequests),
    });
    expect(model.mostAtOnce).toBe(2);
    expect(result.tasks.map(({ task, samples }) => [task.name, samples.length])).toEqual([
      ["a", 5],
      ["bb", 3],
      ["ccc", 4],
    ]);
    expect(result.tasks[2].samples.map(({ values }) => values.logprob)).toEqual([-5, -5, -5, -5]);
    expect(counts.toSorted((a, b) => a - b)).toEqual(counts);
    expect(counts.at(-1)).toBe(12);
  });

  it("as many requests are counted as there are, where samples differ in theirs", async () => {
    const seen: [number, number][] = [];
    await evaluate(new SlowModel(), { tasks: [madeTask("a", 5, 2)], groups: [] }, store, {
      requestsAtOnce: 2,
      onProgress: ({ numDoneRequests, numRequests }) => seen.push([numDoneRequests, numRequests]),
    });
    for (const [numDone, numAll] of seen) expect(numDone).toBeLessThanOrEqual(numAll);
    expect(seen.at(-1)).toEqual([13, 13]);
  });

  it("up to four run together while they have few requests", async () => {
    for (const [requestsAtOnce, most] of [
      [5, 2],
      [7, 3],
      [100, 4],
    ]) {
      const model = new SlowModel();
      const many = ["a", "bb", "ccc", "d", "ee", "fff"].map((name) => madeTask(name, 3));
      const result = await evaluate(model, { tasks: many, groups: [] }, store, { requestsAtOnce });
      expect(model.mostAtOnce).toBe(most);
      expect(result.tasks.map(({ samples }) => samples.length)).toEqual([3, 3, 3, 3, 3, 3]);
    }
  });

  it("an error of one ends the others after the piece they are at", async () => {
    const model = new SlowModel("bb");
    await expect(evaluate(model, { tasks, groups: [] }, store, { requestsAtOnce: 1 })).rejects.toThrow(
      "broken",
    );
    expect(model.asked.filter((text) => text.startsWith("ccc"))).toEqual([]);
    expect(model.asked.filter((text) => text.startsWith("a")).length).toBeLessThan(5);
  });
});
