/**
 * The pieces of a SentencePiece model by their bytes, for its encoders. Knows nothing of files and normalisation.
 * Invariant: `emit` gives what the C++ library gives for a found string: a reserved piece of that text before all others, then the
 * piece, then the bytes or the unknown piece.
 */
import type { IdList } from "./idList.ts";
import { type SentencePieceModel, isReserved, pieceType } from "./modelFile.ts";
import { PieceTrie } from "./pieceTrie.ts";

/** How a normalised text becomes ids. */
export interface PieceEncoder {
  /** Appends the ids of `text[0, end)` to `out`. */
  encode(text: Uint8Array, out: IdList): void;
}

export class PieceIndex {
  readonly model: SentencePieceModel;
  /** The pieces that can be found in a text. */
  readonly trie: PieceTrie;
  /** The user-defined pieces, or undefined when there are none. */
  readonly userDefined: PieceTrie | undefined;
  readonly #reserved: PieceTrie;

  constructor(model: SentencePieceModel) {
    this.model = model;
    const entries = (accept: (type: number) => boolean): [Uint8Array, number][] => {
      const accepted: [Uint8Array, number][] = [];
      model.pieceBytes.forEach((bytes, id) => {
        if (accept(model.types[id])) accepted.push([bytes, id]);
      });
      return accepted;
    };
    this.trie = new PieceTrie(entries((type) => !isReserved(type)));
    this.#reserved = new PieceTrie(entries(isReserved));
    const userDefined = entries((type) => type === pieceType.userDefined);
    this.userDefined = userDefined.length === 0 ? undefined : new PieceTrie(userDefined);
  }

  /** The id of the piece with this text, the unknown one's when there is none. */
  idOf(text: Uint8Array, start: number, end: number): number {
    const range = { start, end };
    const reserved = this.#reserved.idAt(this.#reserved.walk(0, text, range));
    if (reserved >= 0) return reserved;
    const id = this.trie.idAt(this.trie.walk(0, text, range));
    return id >= 0 ? id : this.model.unkId;
  }

  /** Appends `id`, which stands for `text[start, end)`: the bytes' own pieces when it is unknown and there are such. */
  emit(id: number, text: Uint8Array, { start, end, out }: { start: number; end: number; out: IdList }): void {
    const { unkId, hasByteFallback, byteIds } = this.model;
    if (id !== unkId || !hasByteFallback) out.push(id);
    else for (let position = start; position < end; position++) out.push(byteIds[text[position]]);
  }
}
