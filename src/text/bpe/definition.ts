/**
 * What a byte-pair encoding with byte fallback is made of, apart from the file it is stored in, and the names fixed by convention.
 * Invariant of a checked definition: piece texts are unique, all 256 byte pieces exist, and a merge joins two pieces into a third.
 */

/** The special tokens of the Nemotron family, in the order of their ids 0, 1, 2, 3. */
export const standardSpecialTokens = { pad: "<pad>", unk: "<unk>", bos: "<s>", eos: "</s>" } as const;

export interface Merge {
  left: number;
  right: number;
  /** The id of the piece that both together make. */
  merged: number;
}

export interface BpeDefinition {
  /** The text of each piece by its id; byte pieces are spelt "<0x00>" … "<0xFF>". */
  pieces: readonly string[];
  /** In order of rank: the first is applied first. */
  merges: readonly Merge[];
  /** The pieces that are special tokens. */
  specialTokens: readonly string[];
}

const bytePiece = /^<0x([0-9A-F]{2})>$/;

/** The piece that stands for one byte. */
export function bytePieceOf(byte: number): string {
  return `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`;
}

/** The byte that a piece stands for, or undefined for other pieces. */
export function byteOf(piece: string): number | undefined {
  const match = bytePiece.exec(piece);
  return match === null ? undefined : Number.parseInt(match[1], 16);
}
