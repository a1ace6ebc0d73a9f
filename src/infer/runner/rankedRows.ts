/** Log-probabilities of given tokens, their ranks and the most likely ones, from rows of logits: queued, and read back in one copy. */
import { Storage, Tensor } from "../../tensor/index.ts";
import type { Context } from "../../tensor/index.ts";
import type { RankedToken } from "./task.ts";

/** Room for the results of `numRows` rows, filled stretch by stretch. */
export class RankedRows implements Disposable {
  readonly #context: Context;
  readonly #numRows: number;
  readonly #numTop: number;
  readonly #storage: Storage;
  #readback: { readonly isReady: boolean; wait(): Uint8Array } | undefined;

  constructor(context: Context, { numRows, numTop }: { numRows: number; numTop: number }) {
    this.#context = context;
    this.#numRows = numRows;
    this.#numTop = numTop;
    this.#storage = new Storage(context.device.allocate(this.#numWords * 4));
  }

  get #numWords(): number {
    return this.#numRows * (2 + 2 * this.#numTop);
  }

  /** Queues rows first .. first + tokens.numElements: logits f32 (n, V) of them, tokens i32 (n). */
  measure(first: number, logits: Tensor, tokens: Tensor): void {
    const numRows = tokens.numElements;
    const numTop = this.#numTop;
    const field = (column: number, width: number, dtype: "i32" | "f32"): Tensor =>
      this.#context.adopt(
        new Tensor(this.#storage.retain(), {
          shape: [numRows, width],
          dtype,
          byteOffset: 4 * (this.#numRows * column + first * width),
        }),
      );
    this.#context.device.run("tokenLogprobs", {
      logits,
      tokens,
      logprobs: field(0, 1, "f32"),
      ranks: field(1, 1, "i32"),
      ...(numTop === 0
        ? {}
        : { topTokens: field(2, numTop, "i32"), topLogprobs: field(2 + numTop, numTop, "f32") }),
      numRows,
      vocabSize: logits.width,
      numTop,
    });
  }

  /** Queues the copy to the host. */
  read(): void {
    this.#readback = this.#context.device.readback(this.#storage.buffer, 0, this.#numWords * 4);
  }

  get isReady(): boolean {
    return this.#readback?.isReady ?? false;
  }

  /** Waits; gives a row with its `numMostLikely` first. `tokenOf` says which token was measured. */
  wait(): (row: number, token: number, numMostLikely: number) => RankedToken {
    const bytes = (this.#readback?.wait() ?? new Uint8Array(this.#numWords * 4)).slice();
    const floats = new Float32Array(bytes.buffer);
    const integers = new Int32Array(bytes.buffer);
    const numRows = this.#numRows;
    const numTop = this.#numTop;
    return (row, token, numMostLikely) => ({
      token,
      logprob: floats[row],
      rank: integers[numRows + row],
      mostLikely: Array.from({ length: Math.min(numMostLikely, numTop) }, (_, place) => ({
        token: integers[2 * numRows + row * numTop + place],
        logprob: floats[(2 + numTop) * numRows + row * numTop + place],
      })).filter(({ token: found }) => found >= 0),
    });
  }

  dispose(): void {
    this.#storage.release();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
