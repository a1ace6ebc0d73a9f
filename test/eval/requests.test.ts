/**
 * The exact requests of whole tasks against the reference harness's: SHA-256 over UTF-8(context) 1F UTF-8(continuation) 1E of every
 * request in order. The digests were made by lm-evaluation-harness 0.4.13 over the same files; HellaSwag's over the 1,000 raw records.
 */
import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { invariant } from "../../src/base/index.ts";
import { TaskRegistry } from "../../src/eval/index.ts";
import type { DataStore } from "../../src/eval/index.ts";
import { noModel, openData } from "./data.ts";

const registry = new TaskRegistry();

async function digest(
  store: DataStore,
  names: readonly string[],
  contextOnly = false,
): Promise<{ count: number; sha256: string }> {
  const hash = createHash("sha256");
  let count = 0;
  for (const name of names) {
    const task = registry.task(name);
    invariant(task !== undefined, `a task called ${name}`);
    const open = await task.open(store, { seed: 1234, model: noModel });
    for (let index = 0; index < open.numSamples; index++) {
      const { requests } = open.sample(index);
      for (const request of contextOnly ? requests.slice(0, 1) : requests) {
        const [context, continuation] =
          request.kind === "loglikelihood"
            ? [request.context, contextOnly ? "" : request.continuation]
            : request.kind === "generate"
              ? [request.prompt, ""]
              : [request.text, ""];
        invariant(
          typeof context === "string" && typeof continuation === "string",
          "requests without a tokenizer are texts",
        );
        hash.update(`${context}\u001f${continuation}\u001e`);
        count++;
      }
    }
  }
  return { count, sha256: hash.digest("hex") };
}

const subjects = (prefix: string): string[] =>
  registry.tasks
    .map(({ name }) => name)
    .filter(
      (name) => name.startsWith(`${prefix}_`) && (prefix !== "mmlu" || !/^mmlu_(original|helm)_/.test(name)),
    );

describe("requests of whole tasks equal the reference harness's", () => {
  it.for([
    ["arc_easy", 9501, "2db763e46f7d2750ba70be7a7eb2097f6daa751da278687a3bae6730193beaf9"],
    ["piqa", 3676, "d9b43f1473ab616557fa37d2bd9bd31e08020db41cc054c78640d4e48b2971b1"],
    ["winogrande", 2534, "991652f5f130c66f2891f25b129f58c5ed6eb9b480c5a1ac74b17f091e578b16"],
    ["lambada_openai", 5153, "521c496efd250b705653e489f1fee7a0aceacda8dd3384fae6999585aa9d3a97"],
    ["webqs", 4826, "3369564f15e8fa465b562a52fdcf960beb8af267318b6f2a75591ae8ff3d623b"],
    ["hellaswag", 4000, "011019af0162ab6e08339a59f7805e8c4afa24f4e8861e2ff9bf505515b2fcfd"],
    ["gsm8k_cot", 1319, "55dc84883b6691415282108fa84f934d57c1a3aabc2fcc2e5456cb0b522e1471"],
  ] as const)("%s", async ([name, count, sha256], test) => {
    expect(await digest(openData(test), [name])).toEqual({ count, sha256 });
  });

  it("mmlu, five shots, 57 subjects", async (test) => {
    expect(await digest(openData(test), subjects("mmlu"))).toEqual({
      count: 56168,
      sha256: "eaee4e9f4fb88b11cd8e301d9c701546b762b326b2d5b229645fc425ee9613a5",
    });
  });

  it("MMLU's own prompts", async (test) => {
    expect(await digest(openData(test), subjects("mmlu_original"), true)).toEqual({
      count: 14042,
      sha256: "98f533873449432505e0c4e6f805083c8780b7a65f6e21b65fd1ae8d83ce7c1d",
    });
  });
});
