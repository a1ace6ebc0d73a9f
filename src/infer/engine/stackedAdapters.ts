/**
 * Adapters by name in the slots of a stack. An adapter that is taken away keeps its slot's numbers until another needs the slot, the one
 * free for longest first: requests that run with it end as they began.
 */
import { ConfigError, RequestError } from "../../base/index.ts";
import { AdapterStack, loadAdapter, modelFamily } from "../../models/index.ts";
import type { Decoder } from "../../models/index.ts";
import type { Context } from "../../tensor/index.ts";
import type { AdapterSlots } from "./adapters.ts";

export interface StackedAdaptersOptions {
  /** Adapters that are loaded at once. */
  numSlots: number;
  maxRank: number;
}

export class StackedAdapters implements AdapterSlots, Disposable {
  readonly #context: Context;
  readonly #decoder: Decoder;
  readonly #stack: AdapterStack;
  readonly #slots = new Map<string, number>();
  readonly #numLoads = new Map<string, number>();
  /** Oldest first. */
  readonly #free: number[];

  /** Takes the decoder's place for adapters. Throws OutOfMemoryError. */
  constructor(context: Context, decoder: Decoder, options: StackedAdaptersOptions) {
    this.#context = context;
    this.#decoder = decoder;
    this.#stack = new AdapterStack(context, decoder, { family: modelFamily(decoder.config), ...options });
    this.#free = Array.from({ length: options.numSlots }, (_, slot) => slot);
    decoder.attach(this.#stack);
  }

  get names(): readonly string[] {
    return [...this.#slots.keys()];
  }

  indexOf(name: string): number {
    const slot = this.#slots.get(name);
    if (slot !== undefined) return slot + 1;
    throw new RequestError("engine", `expected a loaded adapter, got '${name}'`, {
      hint: this.names.length === 0 ? "none is loaded" : `loaded: ${this.names.join(", ")}`,
    });
  }

  saltOf(name: string): string {
    return `${this.#numLoads.get(name) ?? 0} ${name}`;
  }

  load(name: string, folder: string): Promise<void> {
    try {
      this.#load(name, folder);
      return Promise.resolve();
    } catch (error) {
      return Promise.reject(error instanceof Error ? error : new ConfigError("engine", String(error)));
    }
  }

  #load(name: string, folder: string): void {
    if (this.#slots.has(name)) {
      throw new RequestError("engine", `expected a new name for an adapter, got '${name}', which is loaded`, {
        hint: "unload it first",
      });
    }
    const slot = this.#free.at(0);
    if (slot === undefined) {
      throw new RequestError("engine", `expected at most ${this.#stack.numSlots} adapters, got one more`, {
        hint: `unload one of ${this.names.join(", ")}`,
      });
    }
    const family = modelFamily(this.#decoder.config);
    using adapter = loadAdapter(this.#context, this.#decoder, { family, folder });
    this.#stack.put(slot, adapter);
    this.#free.shift();
    this.#slots.set(name, slot);
    this.#numLoads.set(name, (this.#numLoads.get(name) ?? 0) + 1);
  }

  unload(name: string): Promise<void> {
    const slot = this.#slots.get(name);
    if (slot === undefined) {
      return Promise.reject(new RequestError("engine", `expected a loaded adapter, got '${name}'`));
    }
    this.#slots.delete(name);
    this.#free.push(slot);
    return Promise.resolve();
  }

  dispose(): void {
    if (this.#decoder.adapter === this.#stack) this.#decoder.attach(undefined);
    this.#stack.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
