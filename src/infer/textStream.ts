/**
 * Text from tokens as they are drawn: whole characters only, ended by stop strings wherever they fall, also across tokens. What may
 * yet become a stop string is held back until it cannot.
 */
import type { StreamDecoder } from "../text/index.ts";

export class TextStream {
  readonly #decoder: StreamDecoder;
  readonly #stops: readonly string[];
  #held = "";
  #isStopped = false;

  constructor(decoder: StreamDecoder, stops: readonly string[]) {
    this.#decoder = decoder;
    this.#stops = stops;
  }

  /** Whether a stop string was seen. */
  get isStopped(): boolean {
    return this.#isStopped;
  }

  /** Text that is certain after this token. With `seesStops` false all of it is, and stop strings are text like any other. */
  push(token: number, seesStops = true): string {
    if (this.#isStopped) return "";
    const text = this.#held + this.#decoder.push(token);
    if (seesStops) return this.#take(text);
    this.#held = "";
    return text;
  }

  /** What is left at the end. */
  flush(): string {
    if (this.#isStopped) return "";
    const text = this.#take(this.#held + this.#decoder.flush());
    const rest = this.#held;
    this.#held = "";
    return this.#isStopped ? text : text + rest;
  }

  #take(text: string): string {
    const found = this.#stops.map((stop) => text.indexOf(stop)).filter((index) => index >= 0);
    if (found.length > 0) {
      this.#isStopped = true;
      this.#held = "";
      return text.slice(0, Math.min(...found));
    }
    const numHeld = Math.max(0, ...this.#stops.map((stop) => borderLength(text, stop)));
    this.#held = text.slice(text.length - numHeld);
    return text.slice(0, text.length - numHeld);
  }
}

/** Length of the longest proper beginning of `stop` that `text` ends with. */
function borderLength(text: string, stop: string): number {
  for (let length = Math.min(stop.length - 1, text.length); length > 0; length--) {
    if (text.endsWith(stop.slice(0, length))) return length;
  }
  return 0;
}
