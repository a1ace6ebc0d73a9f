/**
 * Finds the ends of Zstandard frames in a stream of bytes. Node's decompressor stops after the first frame without a word,
 * and parallel compressors and concatenated files have many. Only lengths are read here; nothing is decompressed.
 * Source: RFC 8878, sections 3.1.1 (frames and blocks) and 3.1.2 (skippable frames).
 */
const frameMagic = 0xfd2fb528;
const skippableMagic = 0x184d2a50;

/** A piece of the stream; `endsFrame` when the frame it belongs to is complete. */
export interface FramePiece {
  readonly bytes: Uint8Array;
  readonly endsFrame: boolean;
}

type Step = "magic" | "skippable" | "descriptor" | "block" | "body" | "skipped";

export class ZstdFrameScanner {
  #step: Step = "magic";
  /** Bytes of a field that a chunk's end cut in two. */
  #field: number[] = [];
  /** Bytes still to pass before the next field. */
  #remaining = 0;
  #isLastBlock = false;
  #hasChecksum = false;

  /** Cuts `chunk` at the ends of frames. After bytes that are no frame the rest is one piece, for the decompressor to refuse. */
  *push(chunk: Uint8Array): Generator<FramePiece> {
    let begin = 0;
    let position = 0;
    const isPassing = (): boolean => this.#step === "body" || this.#step === "skipped";
    // Blocks may be empty, so that a frame can end where the chunk does.
    while (position < chunk.length || (isPassing() && this.#remaining === 0)) {
      if (isPassing()) {
        const count = Math.min(this.#remaining, chunk.length - position);
        this.#remaining -= count;
        position += count;
        if (this.#remaining > 0) continue;
        if (this.#step === "skipped" || this.#isLastBlock) {
          this.#step = "magic";
          yield { bytes: chunk.subarray(begin, position), endsFrame: true };
          begin = position;
        } else this.#step = "block";
        continue;
      }
      this.#field.push(chunk[position++]);
      this.#advance();
    }
    if (begin < chunk.length) yield { bytes: chunk.subarray(begin), endsFrame: false };
  }

  /** Reads the field at hand once all its bytes are there. */
  #advance(): void {
    const field = this.#field;
    const value = (count: number): number =>
      field.slice(0, count).reduce((sum, byte, i) => sum + byte * 256 ** i, 0);
    switch (this.#step) {
      case "magic":
        if (field.length < 4) return;
        if (value(4) - (value(4) % 16) === skippableMagic) this.#step = "skippable";
        else if (value(4) === frameMagic) this.#step = "descriptor";
        else this.#begin("skipped", Infinity);
        break;
      case "skippable":
        if (field.length < 4) return;
        this.#begin("skipped", value(4));
        break;
      case "descriptor":
        this.#hasChecksum = (field[0] & 4) !== 0;
        this.#begin("body", headerBytesAfter(field[0]));
        this.#isLastBlock = false;
        break;
      case "block": {
        if (field.length < 3) return;
        const header = value(3);
        const type = (header >> 1) & 3;
        this.#isLastBlock = (header & 1) === 1;
        // A run-length block stores one byte, whatever its size.
        const bodyBytes = type === 1 ? 1 : header >> 3;
        this.#begin("body", bodyBytes + (this.#isLastBlock && this.#hasChecksum ? 4 : 0));
        break;
      }
      case "body":
      case "skipped":
        break;
    }
    this.#field = [];
  }

  #begin(step: "body" | "skipped", numBytes: number): void {
    this.#step = step;
    this.#remaining = numBytes;
  }
}

/** Bytes of the frame header after its descriptor byte. */
function headerBytesAfter(descriptor: number): number {
  const isSingleSegment = (descriptor & 32) !== 0;
  const dictionaryBytes = [0, 1, 2, 4][descriptor & 3];
  const contentSizeBytes = [isSingleSegment ? 1 : 0, 2, 4, 8][descriptor >> 6];
  return (isSingleSegment ? 0 : 1) + dictionaryBytes + contentSizeBytes;
}
