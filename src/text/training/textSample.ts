/**
 * A bounded, deterministic sample of a stream of texts. Knows nothing of words. Invariants: at most `limitBytes` of text are
 * held; which texts are in the sample depends on what the texts are, not on their order, so that files may be read in any order
 * by any number of readers. Method: each text, cut at line ends into pieces of bounded size, has a priority by a hash of its bytes;
 * the pieces of lowest priority that fit together are kept (bottom-k sampling, Cohen and Kaplan 2007).
 */
const pieceUnits = 1 << 16;
const utf8 = new TextEncoder();

interface SampledText {
  priority: number;
  bytes: Uint8Array;
}

export class TextSample {
  readonly #limitBytes: number;
  /** A binary heap with the highest priority on top. */
  readonly #heap: SampledText[] = [];
  /** Everything of this priority or above is left out. */
  #cutoff = Infinity;
  keptBytes = 0;
  seenBytes = 0;

  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes;
  }

  add(text: string): void {
    for (let start = 0; start < text.length;) {
      const end = cutAfter(text, start);
      this.#addPiece(utf8.encode(start === 0 && end === text.length ? text : text.slice(start, end)));
      start = end;
    }
  }

  /** The texts of the sample as UTF-8, in no particular order. */
  *[Symbol.iterator](): Generator<Uint8Array> {
    for (const { bytes } of this.#heap) yield bytes;
  }

  #addPiece(bytes: Uint8Array): void {
    this.seenBytes += bytes.length;
    const priority = priorityOf(bytes);
    if (priority >= this.#cutoff) return;
    this.#push({ priority, bytes });
    this.keptBytes += bytes.length;
    while (this.keptBytes > this.#limitBytes) {
      const dropped = this.#pop();
      this.#cutoff = dropped.priority;
      this.keptBytes -= dropped.bytes.length;
    }
  }

  #push(item: SampledText): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(item);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (heap[parent].priority >= item.priority) break;
      heap[at] = heap[parent];
      at = parent;
    }
    heap[at] = item;
  }

  #pop(): SampledText {
    const heap = this.#heap;
    const top = heap[0];
    const last = heap.pop() ?? top;
    if (heap.length === 0) return top;
    let at = 0;
    for (;;) {
      let child = at * 2 + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && heap[child + 1].priority > heap[child].priority) child++;
      if (heap[child].priority <= last.priority) break;
      heap[at] = heap[child];
      at = child;
    }
    heap[at] = last;
    return top;
  }
}

/** Where the piece that starts at `start` ends: after a line end if there is one near, never inside a surrogate pair. */
function cutAfter(text: string, start: number): number {
  if (text.length - start <= pieceUnits) return text.length;
  const lineEnd = text.lastIndexOf("\n", start + pieceUnits - 1);
  if (lineEnd >= start + pieceUnits / 2) return lineEnd + 1;
  const end = start + pieceUnits;
  const isInsidePair = (text.charCodeAt(end - 1) & 0xfc00) === 0xd800;
  return isInsidePair ? end - 1 : end;
}

/** 53 bits that depend on every byte: two multiplicative hashes (FNV-1a and one with another multiplier), mixed. */
function priorityOf(bytes: Uint8Array): number {
  let first = 0x811c9dc5;
  let second = bytes.length;
  for (let i = 0; i < bytes.length; i++) {
    const byte = bytes[i];
    first = Math.imul(first ^ byte, 0x01000193);
    second = Math.imul(second + byte, 0x5bd1e995) ^ (second >>> 15);
  }
  first = Math.imul(first ^ (first >>> 16), 0x85ebca6b);
  second = Math.imul(second ^ (second >>> 13), 0xc2b2ae35);
  return ((first ^ (first >>> 13)) >>> 0) * 2 ** 21 + ((second ^ (second >>> 16)) >>> 11);
}
