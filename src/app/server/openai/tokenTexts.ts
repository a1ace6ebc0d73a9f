/** Single tokens as text. Some are but a part of a character: their bytes are spelt out then, as OpenAI's server does. */
import type { Tokenizer } from "../../../text/index.ts";

const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

export interface TokenText {
  text: string;
  bytes: number[];
}

/** Texts of tokens, each worked out once an answer. */
export class TokenTexts {
  readonly #tokenizer: Tokenizer;
  readonly #texts = new Map<number, TokenText>();

  constructor(tokenizer: Tokenizer) {
    this.#tokenizer = tokenizer;
  }

  of(id: number): TokenText {
    let found = this.#texts.get(id);
    if (found === undefined) this.#texts.set(id, (found = this.#make(id)));
    return found;
  }

  #make(id: number): TokenText {
    const bytes = this.#tokenizer.decodeBytes([id], { specialTokens: "show", startsText: false });
    try {
      return { text: strict.decode(bytes), bytes: [...bytes] };
    } catch {
      const spelt = [...bytes].map((byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("");
      return { text: `bytes:${spelt}`, bytes: [...bytes] };
    }
  }
}
