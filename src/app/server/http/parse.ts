/** Request bodies through their schemas. */
import type { z } from "zod";
import { ConfigError, parseConfig } from "../../../base/index.ts";
import { Refusal } from "../refusal.ts";

/** Parses a body; a field set to null counts as absent. Throws a refusal (400) that names the field. */
export function parseBody<Schema extends z.ZodType>(
  name: string,
  schema: Schema,
  body: unknown,
): z.output<Schema> {
  if (typeof body !== "object" || body === null || Array.isArray(body))
    throw new Refusal(400, `${name}: expected a JSON object, got ${nameOf(body)}`);
  const given = Object.fromEntries(Object.entries(body).filter(([, value]) => value !== null));
  try {
    return parseConfig(name, schema, given);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    const { key, field = key } = error.fields;
    const words = error.message.replace(/^\[[^\]]*\] /, "").replace(/ \([^()]*\)$/, "");
    throw new Refusal(400, `${name}: ${words}`, {
      ...(error.hint === undefined ? {} : { hint: error.hint }),
      ...(typeof field === "string" && field !== "" ? { parameter: field } : {}),
      reason: "invalid_value",
    });
  }
}

function nameOf(value: unknown): string {
  if (value === null) return "null";
  return Array.isArray(value) ? "an array" : typeof value;
}
