/**
 * Strict configuration: zod schemas in, one clear sentence out. An unknown key is an error that names the nearest known one.
 */
import { z } from "zod";
import { ConfigError } from "./errors.ts";

/** Parses `value` with `schema`; throws a ConfigError naming the field, what was expected, and what was got. */
export function parseConfig<Schema extends z.ZodType>(
  component: string,
  schema: Schema,
  value: unknown,
): z.output<Schema> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const { issues } = result.error;
  // A misspelt key also leaves its field empty: the misspelling is what the user must hear of.
  throw describeIssue(
    component,
    schema,
    value,
    issues.find((issue) => issue.code === "unrecognized_keys") ?? issues[0],
  );
}

function describeIssue(
  component: string,
  schema: z.ZodType,
  value: unknown,
  issue: z.core.$ZodIssue,
): ConfigError {
  const field = issue.path.map(String).join(".");
  const where = field === "" ? "" : `${field}: `;
  if (issue.code === "unrecognized_keys") {
    const unknown = issue.keys[0];
    const known = Object.keys(fieldsAt(schema, issue.path));
    const near = withinFields(unknown, fieldsAt(schema, issue.path)) ?? nearest(unknown, known);
    const hint = near === undefined ? `known keys: ${known.join(", ")}` : `did you mean '${near}'?`;
    const prefix = field === "" ? "" : `${field}.`;
    return new ConfigError(component, `expected a known key, got '${prefix}${unknown}'`, {
      hint,
      fields: { key: unknown },
    });
  }
  const got = valueAt(value, issue.path);
  return new ConfigError(component, `${where}expected ${expectedBy(issue)}, got ${describeValue(got)}`, {
    fields: { field, got },
  });
}

/** What zod's message says it wanted, in the words of our sentences: "a number <=1", "one of …". */
function expectedBy(issue: z.core.$ZodIssue): string {
  if (issue.code === "invalid_union" && issue.message === "Invalid input") return expectedByAny(issue.errors);
  return issue.message
    .replace(/^(Invalid (input|option)|Too (big|small)): expected /, "")
    .replace(/^Invalid discriminator value\. Expected /, "one of ")
    .replace(/, received .*$/, "")
    .replace(
      /^(number|string|array) to (be|have) /,
      (_, kind: string, verb: string) =>
        `a ${kind === "array" ? "list" : kind}${verb === "have" ? " of" : ""} `,
    )
    .replace(/^int$/, "a whole number");
}

/** What each form of a field that has several wanted; of a form that differs within, what it wanted there. */
function expectedByAny(forms: readonly (readonly z.core.$ZodIssue[])[]): string {
  const wanted = forms.map(([issue]) => {
    const place = issue.path.length === 0 ? "" : ` at '${issue.path.map(String).join(".")}'`;
    return `${expectedBy(issue)}${place}`;
  });
  return [...new Set(wanted)].join(" or ");
}

function describeValue(value: unknown): string {
  if (value === undefined) return "nothing";
  const text = JSON.stringify(value) ?? typeof value;
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}

function valueAt(value: unknown, path: readonly PropertyKey[]): unknown {
  let current = value;
  for (const key of path) {
    if (typeof current !== "object" || current === null) return undefined;
    current = Reflect.get(current, key);
  }
  return current;
}

function fieldsAt(schema: z.ZodType, path: readonly PropertyKey[]): Record<string, unknown> {
  let current: unknown = schema;
  for (const key of path) current = shapeOf(current)?.[String(key)];
  return shapeOf(current) ?? {};
}

/** `optim.lr` (or several, for a sentence) for an `lr` that was written one level too high. */
function withinFields(key: string, fields: Readonly<Record<string, unknown>>): string | undefined {
  const found = Object.keys(fields).filter((name) => hasField(fields[name], key));
  return found.length === 0 ? undefined : found.map((name) => `${name}.${key}`).join("' or '");
}

/** Also in one of the forms of a field that has several, as where a name may stand for an object. */
function hasField(schema: unknown, key: string): boolean {
  if (schema instanceof z.ZodUnion) return schema.options.some((option) => hasField(option, key));
  if (schema instanceof z.ZodDefault || schema instanceof z.ZodPrefault || schema instanceof z.ZodOptional)
    return hasField(schema.unwrap(), key);
  return Object.hasOwn(shapeOf(schema) ?? {}, key);
}

/** The fields of an object schema, looking through optional, default and the like. */
function shapeOf(schema: unknown): Record<string, unknown> | undefined {
  if (schema instanceof z.ZodObject) return schema.shape;
  if (
    schema instanceof z.ZodOptional ||
    schema instanceof z.ZodDefault ||
    schema instanceof z.ZodNullable ||
    schema instanceof z.ZodPrefault
  ) {
    return shapeOf(schema.unwrap());
  }
  if (schema instanceof z.ZodPipe) return shapeOf(schema.in);
  return undefined;
}

/** The entry of `known` nearest to `name` by edit distance, when it is near enough to be a slip. */
export function nearest(name: string, known: readonly string[]): string | undefined {
  let best: string | undefined;
  let bestDistance = Math.max(2, Math.floor(name.length / 2)) + 1;
  for (const candidate of known) {
    const distance = editDistance(name.toLowerCase(), candidate.toLowerCase());
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      row.push(Math.min(row[j - 1] + 1, previous[j] + 1, previous[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1)));
    }
    previous = row;
  }
  return previous[b.length];
}
