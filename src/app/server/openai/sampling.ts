/** OpenAI's sampling fields as the engine's options: top_p 1 is off there, topP 0 here. */
import { randomInt } from "node:crypto";
import type { z } from "zod";
import type { constraintFields, samplingFields } from "../../api/openai/index.ts";
import { messageOf } from "../../../base/index.ts";
import { parseSampling } from "../../../infer/index.ts";
import type { EngineRequest, OutputConstraint, SamplingOptions } from "../../../infer/index.ts";
import { Refusal } from "../refusal.ts";

type Fields<Shape extends z.core.$ZodShape> = z.output<z.ZodObject<Shape>>;
export type SamplingFields = Fields<typeof samplingFields>;
export type ConstraintFields = Fields<typeof constraintFields>;

/** Whose meanings hold: NeMo's services take top_p 0 as off, where OpenAI's takes the likeliest token alone. */
export type Dialect = "openai" | "nemo";

const mostSeeds = 2 ** 31;

export function newSeed(): number {
  return randomInt(mostSeeds);
}

/** What of an engine request the sampling fields decide. Throws a refusal (400). */
export function samplingOf(
  fields: SamplingFields,
  {
    maxTokens,
    seed,
    vocabSize,
    stops = [],
    dialect = "openai",
  }: {
    maxTokens: number;
    seed: number;
    vocabSize: number;
    /** Further stop strings, of the chat format. */
    stops?: readonly string[];
    dialect?: Dialect;
  },
): { sampling: SamplingOptions; endTokens: readonly number[] } {
  const isGreedy = fields.temperature === 0 || (fields.top_p === 0 && dialect === "openai");
  const own = typeof fields.stop === "string" ? [fields.stop] : (fields.stop ?? []);
  const sampling = parseSampling({
    maxTokens,
    temperature: isGreedy ? 0 : fields.temperature,
    topK: Math.max(0, fields.top_k),
    topP: fields.top_p >= 1 ? 0 : fields.top_p,
    minP: fields.min_p,
    repetitionPenalty: fields.repetition_penalty,
    presencePenalty: fields.presence_penalty,
    frequencyPenalty: fields.frequency_penalty,
    seed: Math.abs(seed) % Number.MAX_SAFE_INTEGER,
    stop: [...own, ...stops],
    stopAtEnd: !fields.ignore_eos,
    minTokens: Math.min(fields.min_tokens, maxTokens),
    logitBias: biasesOf(fields.logit_bias, vocabSize),
  });
  return { sampling, endTokens: fields.stop_token_ids };
}

function biasesOf(bias: SamplingFields["logit_bias"], vocabSize: number): [number, number][] {
  return Object.entries(bias ?? {}).map(([id, value]) => {
    if (Number(id) < vocabSize) return [Number(id), value];
    throw new Refusal(400, `logit_bias: expected token ids below ${vocabSize}, got ${id}`, {
      parameter: "logit_bias",
      reason: "invalid_token",
    });
  });
}

/** The one constraint that the fields ask for. Throws a refusal (400) for several. */
export function constraintOf(fields: ConstraintFields): EngineRequest["constraint"] {
  const asked: [string, OutputConstraint][] = [];
  const { response_format: format, guided_json: json, guided_regex: regex, guided_choice: choice } = fields;
  if (format?.type === "json_object") asked.push(["response_format", { kind: "json-object" }]);
  if (format?.type === "json_schema")
    asked.push(["response_format", { kind: "json-schema", schema: format.json_schema.schema }]);
  if (format?.type === "regex") asked.push(["response_format", { kind: "regex", pattern: format.pattern }]);
  if (json !== undefined) asked.push(["guided_json", { kind: "json-schema", schema: schemaOf(json) }]);
  if (regex !== undefined) asked.push(["guided_regex", { kind: "regex", pattern: regex }]);
  if (choice !== undefined)
    asked.push(["guided_choice", { kind: "regex", pattern: `(${choice.map(escapePattern).join("|")})` }]);
  if (asked.length > 1) {
    const names = asked.map(([name]) => name).join(" and ");
    throw new Refusal(400, `expected one constraint on the answer, got ${names}`, { parameter: asked[1][0] });
  }
  return asked.at(0)?.[1];
}

function schemaOf(json: string | Record<string, unknown>): unknown {
  if (typeof json !== "string") return json;
  try {
    return JSON.parse(json);
  } catch (error) {
    throw new Refusal(400, `guided_json: expected a JSON schema, got ${messageOf(error)}`, {
      parameter: "guided_json",
    });
  }
}

function escapePattern(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
}
