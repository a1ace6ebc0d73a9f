import { describe, expect, it } from "vitest";
import { Scratch } from "../../../test/data/scratch.ts";
import { readDocuments } from "./read.ts";
import type { Source } from "./schema.ts";

async function texts(source: Source): Promise<string[]> {
  const found: string[] = [];
  for await (const { text } of readDocuments([source])) found.push(text);
  return found;
}

const task = {
  Contributors: ["somebody"],
  Definition: ["Say the opposite."],
  "Positive Examples": [
    { input: "hot", output: "cold", explanation: "" },
    { input: "big", output: "small", explanation: "" },
    { input: "up", output: "down", explanation: "" },
  ],
  "Negative Examples": [],
  Instances: Array.from({ length: 103 }, (_, i) => ({
    id: `t-${i}`,
    input: `in ${i}`,
    output: [`out ${i}`, "other"],
  })),
};

describe("FLAN v2 and P3", () => {
  it("become prompt and answer", async () => {
    using scratch = new Scratch();
    const flan = scratch.write("flan.jsonl", '{"inputs":"Q: 1+1?\\nA:","targets":"2","task":"math"}\n');
    expect(await texts({ kind: "flan", paths: flan })).toEqual(["Q: 1+1?\nA:\n2"]);
    expect(await texts({ kind: "flan", paths: flan, separator: " " })).toEqual(["Q: 1+1?\nA: 2"]);
    const p3 = scratch.write(
      "p3.jsonl",
      '{"inputs_pretokenized":"Who?  ","targets_pretokenized":"\\nMe ","inputs":[1,2]}\n',
    );
    expect(await texts({ kind: "p3", paths: p3 })).toEqual(["Who?\nMe"]);
    await expect(texts({ kind: "p3", paths: flan })).rejects.toThrow(
      "expected a string at key 'inputs_pretokenized'",
    );
  });
});

describe("Natural Instructions", () => {
  it("become definition, examples, input and first output", async () => {
    using scratch = new Scratch();
    scratch.write("tasks/task001_x.json", JSON.stringify(task));
    const found = await texts({
      kind: "natural-instructions",
      paths: scratch.path("tasks"),
      numExamples: 1,
      maxInstances: 2,
    });
    expect(found).toEqual(
      [0, 1].map(
        (i) =>
          "Definition: Say the opposite.\n\nPositive Example 1 -\nInput: hot\nOutput: cold\n\n" +
          `Now complete the following example -\nInput: in ${i}\nOutput: out ${i}`,
      ),
    );
  });

  it("hold out the first 100 instances of test tasks", async () => {
    using scratch = new Scratch();
    scratch.write("tasks/task001_x.json", JSON.stringify(task));
    scratch.write("tasks/task002_y.json", JSON.stringify(task));
    const list = scratch.write("test_tasks.txt", "task002_y\n");
    const source = { kind: "natural-instructions", paths: scratch.path("tasks"), testTasks: list } as const;
    const kept = await texts(source);
    expect(kept).toHaveLength(103 + 3);
    expect(kept.slice(-3).map((text) => text.split("Output: ").at(-1))).toEqual([
      "out 100",
      "out 101",
      "out 102",
    ]);
    const heldOut = await texts({ ...source, heldOut: "only" });
    expect(heldOut).toHaveLength(100);
    expect(heldOut[99]).toContain("Output: out 99");
    expect(
      await texts({ ...source, testTasks: ["task001_x", "task002_y"], heldOut: "only", maxInstances: 7 }),
    ).toHaveLength(14);
  });

  it("name the file that is no task", async () => {
    using scratch = new Scratch();
    const paths = scratch.write("other.json", '{"Instances":[]}');
    await expect(texts({ kind: "natural-instructions", paths })).rejects.toThrow(
      /expected a task of Natural Instructions in .*other\.json, got Definition/,
    );
  });
});
