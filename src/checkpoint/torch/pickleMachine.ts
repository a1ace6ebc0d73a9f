/**
 * The stack and memo that a pickle's opcodes work on, and what they build there. It has no way to call anything but the builders that the
 * caller's rules list.
 */
import { CheckpointError } from "../../base/index.ts";
import type { ByteCursor } from "../cursor.ts";
import { PickleGlobal, PickleRecord } from "./pickleValues.ts";
import type { PickleRules } from "./pickleValues.ts";

const mark = Symbol("mark");

export class PickleMachine {
  readonly input: ByteCursor;
  readonly #rules: PickleRules;
  readonly #stack: unknown[] = [];
  readonly #memo = new Map<number, unknown>();

  constructor(input: ByteCursor, rules: PickleRules) {
    this.input = input;
    this.#rules = rules;
  }

  broken(got: string): CheckpointError {
    return new CheckpointError("pickle", `expected a well-formed pickle in ${this.input.path}, got ${got}`, {
      fields: { path: this.input.path, position: this.input.position },
    });
  }

  refused(what: string): CheckpointError {
    return new CheckpointError(
      "pickle",
      `expected tensors and plain values in ${this.input.path}, got ${what}`,
      {
        hint: "a pickle can name any code; Nautilus runs none of it and refuses what it does not know",
        fields: { path: this.input.path, refused: what },
      },
    );
  }

  push(value: unknown): void {
    this.#stack.push(value);
  }

  #popAny(): unknown {
    if (this.#stack.length === 0) throw this.broken("a value taken from an empty stack");
    return this.#stack.pop();
  }

  pop(): unknown {
    const value = this.#popAny();
    if (value === mark) throw this.broken("a mark where a value should be");
    return value;
  }

  top(): unknown {
    const value = this.pop();
    this.push(value);
    return value;
  }

  /** For the opcode POP, which drops marks too. */
  drop(): void {
    this.#popAny();
  }

  pushMark(): void {
    this.push(mark);
  }

  /** The values above the last mark, in order. */
  popToMark(): unknown[] {
    const at = this.#stack.lastIndexOf(mark);
    if (at < 0) throw this.broken("no mark");
    const values = this.#stack.splice(at + 1);
    this.#stack.pop();
    return values;
  }

  popText(): string {
    const value = this.pop();
    if (typeof value !== "string") throw this.broken(`${typeof value} where a text should be`);
    return value;
  }

  popArgs(): readonly unknown[] {
    const value = this.pop();
    if (!Array.isArray(value)) throw this.broken("arguments that are not a tuple");
    return value;
  }

  popList(): unknown[] {
    const value = this.pop();
    if (!Array.isArray(value)) throw this.broken("items added to something that is not a list");
    return value;
  }

  setItems(pairs: readonly unknown[]): void {
    const target = this.top();
    if (!(target instanceof Map)) throw this.broken("items set in something that is not a dict");
    if (pairs.length % 2 !== 0) throw this.broken("a key without a value");
    for (let i = 0; i < pairs.length; i += 2) target.set(pairs[i], pairs[i + 1]);
  }

  memoize(index: number): void {
    this.#memo.set(index, this.top());
  }

  memoizeNext(): void {
    this.memoize(this.#memo.size);
  }

  recall(index: number): void {
    if (!this.#memo.has(index)) throw this.broken(`no value remembered as ${index}`);
    this.push(this.#memo.get(index));
  }

  pushGlobal(module: string, name: string): void {
    const full = `${module}.${name}`;
    const rule = this.#rules.global(full);
    if (rule === undefined) throw this.refused(full);
    this.push(new PickleGlobal(full, rule === "name" ? undefined : rule));
  }

  /** REDUCE and NEWOBJ: the global below the arguments, built. */
  build(): void {
    const args = this.popArgs();
    const target = this.pop();
    if (!(target instanceof PickleGlobal)) throw this.refused("a call of something that is not a global");
    if (target.build === undefined) throw this.refused(`a call of ${target.name}`);
    this.push(target.build(args, target.name));
  }

  /** BUILD: an object's attributes. Those of dicts (a state dict's version notes) and of listed values say nothing we need. */
  setState(): void {
    const state = this.pop();
    const target = this.top();
    if (!(target instanceof PickleRecord)) return;
    // A pair is (attributes, slots); anything else is the class's own form, kept for those who know it.
    const parts = Array.isArray(state) && state.length === 2 ? state : [state];
    if (parts.every((part) => part instanceof Map || part === null)) {
      for (const part of parts)
        if (part instanceof Map) for (const [key, value] of part) target.fields.set(key, value);
    } else target.fields.set("__state__", state);
  }

  persistent(id: unknown): void {
    if (this.#rules.persistent === undefined) throw this.refused("a persistent id");
    this.push(this.#rules.persistent(id));
  }
}
