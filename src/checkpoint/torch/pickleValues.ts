/** What a pickle is read into beside plain values, and the rules that say which names it may hold. */

/** A Python object without its class's code: the class's name and the object's attributes. */
export class PickleRecord {
  readonly className: string;
  readonly args: readonly unknown[];
  readonly fields = new Map<unknown, unknown>();

  constructor(className: string, args: readonly unknown[]) {
    this.className = className;
    this.args = args;
  }
}

/** A name that the pickle refers to, as a value (a dtype, a class). */
export class PickleGlobal {
  readonly name: string;
  /** What calling it gives, from its arguments; absent for plain names. */
  readonly build: GlobalBuilder | undefined;

  constructor(name: string, build: GlobalBuilder | undefined) {
    this.name = name;
    this.build = build;
  }
}

export type GlobalBuilder = (args: readonly unknown[], name: string) => unknown;

export interface PickleRules {
  /** The builder of a global by its full name ("collections.OrderedDict"); "name" for one that is only a value; undefined refuses it. */
  global(name: string): GlobalBuilder | "name" | undefined;
  /** The object behind a persistent id. */
  persistent?(id: unknown): unknown;
}

/** Builder of an object kept as its attributes. */
export const asRecord: GlobalBuilder = (args, name) => new PickleRecord(name, args);
