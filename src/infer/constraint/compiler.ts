/**
 * Constraints of one tokenizer: source text to automaton, once per distinct text, and from a state of it to the tokens that may come,
 * once per state.
 */
import { invariant, RequestError } from "../../base/index.ts";
import type { Tokenizer } from "../../text/index.ts";
import type { OutputConstraint } from "../engine/contract.ts";
import { Automaton } from "./automaton.ts";
import type { ConstraintCompiler, ConstraintState } from "./contract.ts";
import type { Grammar } from "./grammar.ts";
import { jsonObjectGrammar, jsonSchemaGrammar } from "./jsonSchema.ts";
import { parseRegex } from "./regex.ts";
import { TokenTrie } from "./tokenTrie.ts";

/** Bounds on what is kept: compiled texts, and bytes of masks of each. */
const mostCompiled = 64;
const mostMaskBytes = 64 * 2 ** 20;

function grammarOf(constraint: OutputConstraint): Grammar {
  switch (constraint.kind) {
    case "regex":
      return { root: parseRegex(constraint.pattern), rules: new Map() };
    case "json-schema":
      return jsonSchemaGrammar(constraint.schema);
    case "json-object":
      return jsonObjectGrammar();
  }
}

interface Mask {
  mask: Uint32Array;
  isEmpty: boolean;
}

class CompiledConstraint {
  readonly automaton: Automaton;
  readonly trie: TokenTrie;
  readonly #masks = new Map<number, Mask>();
  #maskBytes = 0;

  constructor(grammar: Grammar, trie: TokenTrie) {
    this.automaton = new Automaton(grammar);
    this.trie = trie;
  }

  mask(state: number): Mask {
    const known = this.#masks.get(state);
    if (known !== undefined) return known;
    const made = this.trie.allowed(this.automaton, state);
    this.#maskBytes += made.mask.byteLength;
    if (this.#maskBytes > mostMaskBytes) {
      this.#masks.clear();
      this.#maskBytes = made.mask.byteLength;
    }
    this.#masks.set(state, made);
    return made;
  }

  start(endTokens: readonly number[]): ConstraintState {
    return new WrittenSoFar(this, endTokens);
  }
}

class WrittenSoFar implements ConstraintState {
  readonly #constraint: CompiledConstraint;
  readonly #endTokens: readonly number[];
  #state: number;
  #numTaken = 0;

  constructor(constraint: CompiledConstraint, endTokens: readonly number[]) {
    this.#constraint = constraint;
    this.#endTokens = endTokens;
    this.#state = constraint.automaton.start;
    const { automaton } = constraint;
    if (constraint.mask(this.#state).isEmpty && !automaton.isAccepting(this.#state))
      throw new RequestError(
        "constraint",
        "expected a constraint that some text meets, got one that none does",
      );
  }

  get numTaken(): number {
    return this.#numTaken;
  }

  get isComplete(): boolean {
    return this.#constraint.mask(this.#state).isEmpty;
  }

  allowed(): Uint32Array {
    const { mask, isEmpty } = this.#constraint.mask(this.#state);
    if (!isEmpty && !this.#constraint.automaton.isAccepting(this.#state)) return mask;
    const withEnds = mask.slice();
    for (const token of this.#endTokens) withEnds[token >> 5] |= 1 << (token & 31);
    return withEnds;
  }

  advance(token: number): void {
    const { automaton, trie } = this.#constraint;
    this.#numTaken++;
    for (const byte of trie.bytesOf(token) ?? []) this.#state = automaton.next(this.#state, byte);
    invariant(this.#state >= 0, "a token that the constraint allowed");
  }
}

export class GrammarCompiler implements ConstraintCompiler {
  readonly #tokenizer: Tokenizer;
  readonly #numTokens: number;
  readonly #compiled = new Map<string, CompiledConstraint>();
  #trie: TokenTrie | undefined;

  constructor(tokenizer: Tokenizer, numTokens: number) {
    this.#tokenizer = tokenizer;
    this.#numTokens = numTokens;
  }

  /** Builds the tree of the vocabulary, so that no request waits for it. */
  warmUp(): void {
    this.#trie ??= new TokenTrie(this.#tokenizer, this.#numTokens);
  }

  compile(constraint: OutputConstraint): CompiledConstraint {
    const key = JSON.stringify(constraint);
    const known = this.#compiled.get(key);
    if (known !== undefined) {
      // The last used one is the last to go.
      this.#compiled.delete(key);
      this.#compiled.set(key, known);
      return known;
    }
    this.#trie ??= new TokenTrie(this.#tokenizer, this.#numTokens);
    const compiled = new CompiledConstraint(grammarOf(constraint), this.#trie);
    this.#compiled.set(key, compiled);
    const [oldest] = this.#compiled.keys();
    if (this.#compiled.size > mostCompiled && oldest !== undefined) this.#compiled.delete(oldest);
    return compiled;
  }
}
