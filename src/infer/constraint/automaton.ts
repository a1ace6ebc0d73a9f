/**
 * Runs a grammar byte by byte: a nondeterministic automaton with a stack for rules, made deterministic as far as it is walked. A state is
 * a set of places, each a node with the nodes to return to; equal sets are one state, and its transitions are found once.
 */
import { invariant, RequestError } from "../../base/index.ts";
import type { Expression, Grammar, Range } from "./grammar.ts";

/** An edge takes a byte, calls a rule, or is free; a node without edges ends its rule. */
type Edge =
  | { kind: "bytes"; ranges: readonly Range[]; to: number }
  | { kind: "free"; to: number }
  | { kind: "call"; rule: string; to: number };

/** Expressions beyond this say more than a mask a token can be made for. */
const mostNodes = 400_000;

class Nodes {
  readonly edges: Edge[][] = [];

  add(): number {
    if (this.edges.length >= mostNodes) {
      throw new RequestError(
        "constraint",
        `expected a constraint of at most ${mostNodes} places, got a larger one`,
        {
          hint: "lower maxLength, maxItems or the counts of the pattern",
        },
      );
    }
    return this.edges.push([]) - 1;
  }

  /** Builds `expression` from node `from`, and gives the node at its end. */
  build(expression: Expression, from: number): number {
    switch (expression.kind) {
      case "bytes": {
        const to = this.add();
        this.edges[from].push({ kind: "bytes", ranges: expression.ranges, to });
        return to;
      }
      case "sequence":
        return expression.parts.reduce((at, part) => this.build(part, at), from);
      case "choice": {
        const to = this.add();
        for (const option of expression.options) this.free(this.build(option, from), to);
        return to;
      }
      case "rule": {
        const to = this.add();
        this.edges[from].push({ kind: "call", rule: expression.name, to });
        return to;
      }
      case "repeat":
        return this.#buildRepeat(expression, from);
    }
  }

  #buildRepeat({ body, min, max }: Expression & { kind: "repeat" }, from: number): number {
    let at = from;
    for (let i = 0; i < min; i++) at = this.build(body, at);
    if (max === undefined) {
      // A node of its own: what comes back here must not come back further.
      const loop = this.add();
      this.free(at, loop);
      this.free(this.build(body, loop), loop);
      const to = this.add();
      this.free(loop, to);
      return to;
    }
    const to = this.add();
    for (let i = min; i < max; i++) {
      this.free(at, to);
      at = this.build(body, at);
    }
    this.free(at, to);
    return to;
  }

  free(from: number, to: number): void {
    this.edges[from].push({ kind: "free", to });
  }
}

/** A node and where to go on after its rule ends: shared tails, equal ones one object. */
interface Place {
  readonly id: number;
  readonly node: number;
  readonly rest: Place | undefined;
}

interface State {
  readonly places: readonly Place[];
  readonly isAccepting: boolean;
  /** By byte: a state, `dead`, or `unknown`. */
  readonly next: Int32Array;
}

const unknown = -2;
export const dead = -1;

export class Automaton {
  readonly #nodes = new Nodes();
  readonly #rules = new Map<string, number>();
  /** Nodes at which a rule, or the whole, ends. */
  readonly #ends = new Set<number>();
  readonly #places = new Map<string, Place>();
  readonly #states: State[] = [];
  readonly #stateIds = new Map<string, number>();
  /** Where the text begins. */
  readonly start: number;

  /** Throws RequestError for a grammar that is too large, or whose rules call themselves before any byte. */
  constructor({ root, rules }: Grammar) {
    for (const [name, expression] of rules) {
      const first = this.#nodes.add();
      this.#rules.set(name, first);
      this.#finish(this.#nodes.build(expression, first));
    }
    const first = this.#nodes.add();
    this.#finish(this.#nodes.build(root, first));
    this.start = this.#stateOf([this.#place(first, undefined)]);
  }

  #finish(node: number): void {
    this.#ends.add(node);
  }

  get numStates(): number {
    return this.#states.length;
  }

  isAccepting(state: number): boolean {
    return this.#states[state].isAccepting;
  }

  /** Whether any byte may follow. */
  canContinue(state: number): boolean {
    return this.#states[state].places.some(({ node }) =>
      this.#nodes.edges[node].some((edge) => edge.kind === "bytes"),
    );
  }

  /** The state after `byte`, or `dead`. */
  next(state: number, byte: number): number {
    const { next } = this.#states[state];
    const known = next[byte];
    if (known !== unknown) return known;
    return (next[byte] = this.#step(state, byte));
  }

  #step(state: number, byte: number): number {
    const reached: Place[] = [];
    for (const { node, rest } of this.#states[state].places) {
      for (const edge of this.#nodes.edges[node]) {
        if (edge.kind === "bytes" && edge.ranges.some(([low, high]) => byte >= low && byte <= high))
          reached.push(this.#place(edge.to, rest));
      }
    }
    return reached.length === 0 ? dead : this.#stateOf(reached);
  }

  #place(node: number, rest: Place | undefined): Place {
    const key = `${node},${rest?.id ?? -1}`;
    const existing = this.#places.get(key);
    if (existing !== undefined) return existing;
    const place = { id: this.#places.size, node, rest };
    this.#places.set(key, place);
    return place;
  }

  /** The state of these places and all that is reached from them without a byte. */
  #stateOf(from: readonly Place[]): number {
    const found = new Set<Place>();
    const open = [...from];
    let isAccepting = false;
    for (let place = open.pop(); place !== undefined; place = open.pop()) {
      if (found.has(place)) continue;
      found.add(place);
      if (found.size > 100_000)
        throw new RequestError(
          "constraint",
          "expected rules that begin with some text, got one that calls itself first",
        );
      const { node, rest } = place;
      for (const edge of this.#nodes.edges[node]) {
        if (edge.kind === "free") open.push(this.#place(edge.to, rest));
        else if (edge.kind === "call")
          open.push(this.#place(this.#ruleStart(edge.rule), this.#place(edge.to, rest)));
      }
      if (!this.#ends.has(node)) continue;
      if (rest === undefined) isAccepting = true;
      else open.push(rest);
    }
    // Only places that take a byte make a difference.
    const places = [...found]
      .filter(({ node }) => this.#nodes.edges[node].some((edge) => edge.kind === "bytes"))
      .sort((a, b) => a.id - b.id);
    const key = `${isAccepting} ${places.map(({ id }) => id).join()}`;
    const known = this.#stateIds.get(key);
    if (known !== undefined) return known;
    const id = this.#states.push({ places, isAccepting, next: new Int32Array(256).fill(unknown) }) - 1;
    this.#stateIds.set(key, id);
    return id;
  }

  #ruleStart(name: string): number {
    const first = this.#rules.get(name);
    invariant(first !== undefined, `a rule '${name}'`);
    return first;
  }
}
