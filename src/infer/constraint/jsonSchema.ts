/**
 * JSON schema (draft 2020-12 and what older drafts share with it) as a grammar of the texts to write. Every text it lets through is valid;
 * not every valid text is let through: properties come in the schema's order, and none that it does not name beside those it does. Keywords
 * that cannot be held to are refused by name.
 */
import { choice, empty, literal, optional, repeat, rule, sequence } from "./grammar.ts";
import type { Expression, Grammar } from "./grammar.ts";
import { integerRange } from "./integerRange.ts";
import { integer, json, jsonRules, listOf, stringCharacters, stringOfLength } from "./json.ts";
import { parseRegex } from "./regex.ts";
import {
  annotations,
  arePairwiseDisjoint,
  asArray,
  asSchema,
  bound,
  checkKeywords,
  count,
  isOfType,
  keywordsOf,
  refused,
  typesOf,
} from "./schemaValues.ts";
import type { Schema } from "./schemaValues.ts";

/** Throws RequestError naming what is not supported and where. */
export function jsonSchemaGrammar(schema: unknown): Grammar {
  return new SchemaReader(schema).read();
}

export function jsonObjectGrammar(): Grammar {
  return { root: json.object, rules: jsonRules() };
}

class SchemaReader {
  readonly #document: unknown;
  readonly #rules = jsonRules();
  /** Rules of places that references point to. */
  readonly #references = new Map<string, string>();
  /** References that are being followed without anything written between. */
  readonly #following = new Set<string>();

  constructor(document: unknown) {
    this.#document = document;
  }

  read(): Grammar {
    return { root: this.#value(this.#document, "#"), rules: this.#rules };
  }

  #value(given: unknown, at: string): Expression {
    if (given === true) return json.value;
    const schema = asSchema(given, at);
    if ("$ref" in schema) return this.#reference(schema, at);
    if ("const" in schema) return this.#constants(schema, [schema["const"]], at);
    if ("enum" in schema) return this.#constants(schema, asArray(schema["enum"], `${at}/enum`), at);
    for (const keyword of ["anyOf", "oneOf", "allOf"]) {
      if (keyword in schema) return this.#combined(schema, keyword, at);
    }
    const types = typesOf(schema, at);
    checkKeywords(schema, [...annotations, "type", ...types.flatMap((type) => keywordsOf[type])], at);
    if (Object.keys(schema).every((key) => annotations.includes(key))) return json.value;
    return choice(...types.map((type) => this.#typed(type, schema, at)));
  }

  #reference(schema: Schema, at: string): Expression {
    checkKeywords(schema, [...annotations, "$ref"], at);
    const target = schema["$ref"];
    if (typeof target !== "string" || !target.startsWith("#"))
      throw refused(
        at,
        `$ref ${JSON.stringify(target)}`,
        "a reference within the schema, such as #/$defs/name",
      );
    const known = this.#references.get(target);
    if (known !== undefined) {
      if (this.#following.has(target))
        throw refused(at, `$ref ${target}`, "a reference that does not lead to itself");
      return rule(known);
    }
    const name = `ref ${target}`;
    this.#references.set(target, name);
    this.#following.add(target);
    this.#rules.set(name, this.#value(this.#resolve(target, at), target));
    this.#following.delete(target);
    return rule(name);
  }

  #resolve(target: string, at: string): unknown {
    let value = this.#document;
    for (const part of target.split("/").slice(1)) {
      const key = decodeURIComponent(part).replaceAll("~1", "/").replaceAll("~0", "~");
      if (typeof value !== "object" || value === null || !(key in value))
        throw refused(at, `$ref ${target}`, "a reference to something that is there");
      value = Array.isArray(value) ? value[Number(key)] : asSchema(value, at)[key];
    }
    return value;
  }

  #constants(schema: Schema, values: readonly unknown[], at: string): Expression {
    checkKeywords(schema, [...annotations, "type", "enum", "const"], at);
    const types = "type" in schema ? typesOf(schema, at) : undefined;
    const fitting = values.filter(
      (value) => types === undefined || types.some((type) => isOfType(value, type)),
    );
    if (fitting.length === 0) throw refused(at, "no value of its type", "an enum or const that can be");
    return choice(...fitting.map((value) => literal(JSON.stringify(value))));
  }

  #combined(schema: Schema, keyword: string, at: string): Expression {
    checkKeywords(schema, [...annotations, keyword, "type"], at);
    const options = asArray(schema[keyword], `${at}/${keyword}`);
    if (keyword === "allOf" && options.length !== 1)
      throw refused(at, `allOf of ${options.length}`, "allOf of one schema");
    if (keyword === "oneOf" && !arePairwiseDisjoint(options))
      throw refused(at, "oneOf", "oneOf whose members differ in type or in a required constant; or anyOf");
    return choice(...options.map((option, index) => this.#value(option, `${at}/${keyword}/${index}`)));
  }

  #typed(type: string, schema: Schema, at: string): Expression {
    // Behind this something is written: a reference may lead back here.
    const following = [...this.#following];
    if (type === "object" || type === "array") this.#following.clear();
    const expression = this.#ofType(type, schema, at);
    for (const target of following) this.#following.add(target);
    return expression;
  }

  #ofType(type: string, schema: Schema, at: string): Expression {
    switch (type) {
      case "string":
        return this.#string(schema, at);
      case "integer":
        return this.#integer(schema, at);
      case "number":
        return json.number;
      case "boolean":
        return choice(literal("true"), literal("false"));
      case "null":
        return literal("null");
      case "array":
        return this.#array(schema, at);
      default:
        return this.#object(schema, at);
    }
  }

  #string(schema: Schema, at: string): Expression {
    const min = count(schema, "minLength", at) ?? 0;
    const max = count(schema, "maxLength", at);
    const pattern = schema["pattern"];
    if (pattern === undefined) return min === 0 && max === undefined ? json.string : stringOfLength(min, max);
    if (typeof pattern !== "string") throw refused(at, "a pattern that is no text", "a regular expression");
    if (min > 0 || max !== undefined)
      throw refused(at, "pattern together with minLength or maxLength", "the length within the pattern");
    const body = parseRegex(pattern, { emit: stringCharacters, isSearch: true });
    return sequence(literal('"'), body, literal('"'));
  }

  #integer(schema: Schema, at: string): Expression {
    const minimum = bound(schema, "minimum", at);
    const above = bound(schema, "exclusiveMinimum", at);
    const maximum = bound(schema, "maximum", at);
    const below = bound(schema, "exclusiveMaximum", at);
    const mins = [
      minimum === undefined ? undefined : Math.ceil(minimum),
      above === undefined ? undefined : Math.floor(above) + 1,
    ];
    const maxes = [
      maximum === undefined ? undefined : Math.floor(maximum),
      below === undefined ? undefined : Math.ceil(below) - 1,
    ];
    const low = Math.max(...mins.map((value) => value ?? -Infinity));
    const high = Math.min(...maxes.map((value) => value ?? Infinity));
    if (low === -Infinity && high === Infinity) return integer;
    if (low > high) throw refused(at, `integers from ${low} to ${high}`, "bounds with a number between them");
    return integerRange(low === -Infinity ? undefined : low, high === Infinity ? undefined : high);
  }

  #array(schema: Schema, at: string): Expression {
    const { space } = json;
    const first = "prefixItems" in schema ? asArray(schema["prefixItems"], `${at}/prefixItems`) : [];
    const prefix = first.map((item, index) => this.#value(item, `${at}/prefixItems/${index}`));
    const min = count(schema, "minItems", at) ?? 0;
    const items = schema["items"];
    const max =
      items === false
        ? Math.min(prefix.length, count(schema, "maxItems", at) ?? Infinity)
        : count(schema, "maxItems", at);
    const item = items === undefined || items === false ? json.value : this.#value(items, `${at}/items`);
    if (max !== undefined && min > max)
      throw refused(at, `from ${min} to ${max} items`, "minItems within maxItems");
    if (prefix.length === 0 && min === 0 && max === undefined) return listOf("[", item, "]");
    return sequence(literal("["), space, this.#items(prefix, item, { min, max }), space, literal("]"));
  }

  /** Between the brackets: the prefix's members, then equal ones, so many in all. */
  #items(
    prefix: readonly Expression[],
    item: Expression,
    { min, max }: { min: number; max: number | undefined },
  ): Expression {
    const { comma } = json;
    const numFixed = Math.min(prefix.length, max ?? Infinity);
    const numRest = { min: Math.max(0, min - numFixed), max: max === undefined ? undefined : max - numFixed };
    let tail: Expression = empty;
    if (numFixed > 0) tail = repeat(sequence(comma, item), numRest.min, numRest.max);
    else if (numRest.max !== 0) {
      const more = repeat(
        sequence(comma, item),
        Math.max(0, numRest.min - 1),
        numRest.max === undefined ? undefined : numRest.max - 1,
      );
      tail = numRest.min === 0 ? optional(sequence(item, more)) : sequence(item, more);
    }
    for (let index = numFixed - 1; index >= 0; index--) {
      const whole = sequence(...(index === 0 ? [] : [comma]), prefix[index], tail);
      tail = index < min ? whole : optional(whole);
    }
    return tail;
  }

  #object(schema: Schema, at: string): Expression {
    const { properties = {}, required = [], additionalProperties } = schema;
    const named = Object.entries(asSchema(properties, `${at}/properties`));
    const needed = new Set(asArray(required, `${at}/required`).map(String));
    for (const name of needed)
      if (!named.some(([known]) => known === name)) named.push([name, additionalProperties ?? true]);
    if (named.length === 0 && additionalProperties === false)
      return sequence(literal("{"), json.space, literal("}"));
    if (named.length === 0) {
      const value =
        additionalProperties === undefined
          ? json.value
          : this.#value(additionalProperties, `${at}/additionalProperties`);
      return listOf("{", sequence(json.string, json.colon, value), "}");
    }
    const members = named.map(([name, value]) => ({
      isRequired: needed.has(name),
      text: sequence(
        literal(JSON.stringify(name)),
        json.colon,
        this.#value(value, `${at}/properties/${name}`),
      ),
    }));
    return sequence(literal("{"), json.space, this.#members(members, at), json.space, literal("}"));
  }

  /** Members in order, some of which may be missing: a rule for what may follow each, with and without one before. */
  #members(members: readonly { isRequired: boolean; text: Expression }[], at: string): Expression {
    let withOne: Expression = empty;
    let withNone: Expression = empty;
    for (let index = members.length - 1; index >= 0; index--) {
      const { isRequired, text } = members[index];
      const name = `members ${at} ${index} ${this.#rules.size}`;
      const after = withOne;
      const following = sequence(json.comma, text, after);
      const leading = sequence(text, after);
      this.#rules.set(`${name} after one`, isRequired ? following : choice(following, withOne));
      this.#rules.set(`${name} first`, isRequired ? leading : choice(leading, withNone));
      withOne = rule(`${name} after one`);
      withNone = rule(`${name} first`);
    }
    return withNone;
  }
}
