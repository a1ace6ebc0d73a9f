/**
 * The log of a task: one JSON object a line and a sample, written as samples are done, so that an interrupted run goes on where it
 * stopped. A line that the interruption cut is dropped.
 */
import { createHash } from "node:crypto";
import { appendFileSync, existsSync, readFileSync, truncateSync } from "node:fs";
import { z } from "zod";
import { DataError, withFileErrors } from "../base/index.ts";
import type { Answer, Sample, SampleScore, TaskRequest } from "./task.ts";

const logged = z.object({
  index: z.number().int().min(0),
  promptHash: z.string(),
  target: z.string(),
  requests: z.array(z.object({ prompt: z.string(), continuation: z.string().optional() })),
  answers: z.array(
    z.union([
      z.object({
        kind: z.literal("likelihood"),
        logprob: z.number(),
        isGreedy: z.boolean(),
        numTokens: z.number().int(),
      }),
      z.object({ kind: z.literal("text"), text: z.string() }),
    ]),
  ),
  prediction: z.string(),
  isCorrect: z.boolean().optional(),
  values: z.record(
    z.string(),
    z.union([
      z.number(),
      z.object({ logprob: z.number(), weight: z.number() }),
      z.object({ hypothesis: z.string(), reference: z.string() }),
    ]),
  ),
});

export type LoggedSample = z.output<typeof logged>;

export class SampleLog {
  readonly path: string;

  constructor(path: string) {
    this.path = path;
  }

  /** What is logged already. Throws DataError for a line that is not of this log. */
  read(): LoggedSample[] {
    if (!existsSync(this.path)) return [];
    const text = withFileErrors("eval", "a readable log", this.path, () => readFileSync(this.path, "utf8"));
    const whole = text.slice(0, text.lastIndexOf("\n") + 1);
    if (whole.length < text.length) truncateSync(this.path, Buffer.byteLength(whole));
    return whole.split("\n").flatMap((line, index) => (line === "" ? [] : [this.#parse(line, index + 1)]));
  }

  #parse(line: string, number: number): LoggedSample {
    try {
      return logged.parse(JSON.parse(line));
    } catch (error) {
      throw new DataError(
        "eval",
        `expected a logged sample in ${this.path} line ${number}, got another line`,
        {
          hint: "remove the log to begin anew",
          cause: error,
        },
      );
    }
  }

  append(samples: readonly LoggedSample[]): void {
    const text = samples.map((sample) => `${JSON.stringify(sample)}\n`).join("");
    withFileErrors("eval", "a writable log", this.path, () => appendFileSync(this.path, text));
  }
}

/** What makes a sample the same one: its requests. */
export function promptHash(requests: readonly TaskRequest[]): string {
  const hash = createHash("sha256");
  for (const request of requests) {
    const [prompt, continuation] = partsOf(request);
    hash.update(`${prompt}\u001f${continuation ?? ""}\u001e`);
  }
  return hash.digest("hex");
}

function partsOf(request: TaskRequest): [prompt: string, continuation: string | undefined] {
  const shown = (prompt: string | Int32Array): string =>
    typeof prompt === "string" ? prompt : `[${prompt.join(",")}]`;
  if (request.kind === "rolling") return [request.text, undefined];
  if (request.kind === "generate") return [request.prompt, undefined];
  const { context, continuation } = request.texts ?? request;
  return [shown(context), shown(continuation)];
}

export function logEntry(sample: Sample, answers: readonly Answer[], score: SampleScore): LoggedSample {
  const { values, prediction, isCorrect } = score;
  return {
    index: sample.index,
    promptHash: promptHash(sample.requests),
    target: sample.target,
    requests: sample.requests.map((request) => {
      const [prompt, continuation] = partsOf(request);
      return continuation === undefined ? { prompt } : { prompt, continuation };
    }),
    answers: [...answers],
    prediction,
    ...(isCorrect === undefined ? {} : { isCorrect }),
    values,
  };
}
