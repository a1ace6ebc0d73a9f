/**
 * The bytes of single pieces by the decoder that a tokenizer.json names, where each piece's bytes do not depend on its neighbours.
 * Knows nothing of encoding. Sources: GPT-2's table of visible characters for bytes; the decoders of Hugging Face's `tokenizers`.
 */
import { z } from "zod";
import { byteOf } from "../bpe/definition.ts";

/** Gives the bytes of a piece that was not added behind the vocabulary. */
export interface PieceDecoding {
  bytesOf(piece: string): Uint8Array;
  /** How many spaces at the beginning of a text were put there by the encoder. */
  numLeadingSpaces: number;
}

const utf8 = new TextEncoder();
const part = z.looseObject({ type: z.string() });
const replace = z.object({
  type: z.literal("Replace"),
  pattern: z.object({ String: z.string() }),
  content: z.string(),
});
const strip = z.object({
  type: z.literal("Strip"),
  content: z.literal(" "),
  start: z.int(),
  stop: z.literal(0),
});
const metaspace = z.object({
  type: z.literal("Metaspace"),
  replacement: z.string().optional(),
  prepend_scheme: z.string().optional(),
  add_prefix_space: z.boolean().optional(),
});

/** The decoding that `decoder` describes, or undefined for one whose pieces depend on each other. */
export function pieceDecodingOf(decoder: unknown): PieceDecoding | undefined {
  const sequence = z.object({ type: z.literal("Sequence"), decoders: z.array(part) }).safeParse(decoder);
  const parts = sequence.success ? sequence.data.decoders : [decoder];
  if (parts.length === 1 && part.safeParse(parts[0]).data?.type === "ByteLevel")
    return { bytesOf: byteLevelBytes, numLeadingSpaces: 0 };
  const replacements: { from: string; to: string }[] = [];
  let numLeadingSpaces = 0;
  let hasByteFallback = false;
  for (const each of parts) {
    const asReplace = replace.safeParse(each).data;
    const asStrip = strip.safeParse(each).data;
    const asMetaspace = metaspace.safeParse(each).data;
    const type = part.safeParse(each).data?.type;
    if (asReplace !== undefined) replacements.push({ from: asReplace.pattern.String, to: asReplace.content });
    else if (asStrip !== undefined) numLeadingSpaces += asStrip.start;
    else if (asMetaspace !== undefined) {
      replacements.push({ from: asMetaspace.replacement ?? "\u2581", to: " " });
      const isPrepended = asMetaspace.prepend_scheme !== "never" && asMetaspace.add_prefix_space !== false;
      numLeadingSpaces += isPrepended ? 1 : 0;
    } else if (type === "ByteFallback") hasByteFallback = true;
    else if (type !== "Fuse") return undefined;
  }
  const bytesOf = (piece: string): Uint8Array => {
    const byte = hasByteFallback ? byteOf(piece) : undefined;
    if (byte !== undefined) return Uint8Array.of(byte);
    return utf8.encode(replacements.reduce((text, { from, to }) => text.replaceAll(from, to), piece));
  };
  return { bytesOf, numLeadingSpaces };
}

/** The byte of each visible character: printable Latin-1 stands for itself, the rest begins at U+0100 in order. */
const byteOfCharacter = (() => {
  const isItself = (byte: number): boolean =>
    (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
  const table = new Map<string, number>();
  let next = 0x100;
  for (let byte = 0; byte < 256; byte++)
    table.set(String.fromCodePoint(isItself(byte) ? byte : next++), byte);
  return table;
})();

/** A piece with a character that stands for no byte is its own text. */
function byteLevelBytes(piece: string): Uint8Array {
  const bytes: number[] = [];
  for (const character of piece) {
    const byte = byteOfCharacter.get(character);
    if (byte === undefined) return utf8.encode(piece);
    bytes.push(byte);
  }
  return Uint8Array.from(bytes);
}
