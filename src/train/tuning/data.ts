/** Encoded examples as training batches: rows per epoch, packed or one example each, and what is compared with what in preferences. */
import { ConfigError } from "../../base/index.ts";
import { layOut, packFirstFit, shuffled, textsOf } from "../../data/index.ts";
import type { EncodedText, TuningExample } from "../../data/index.ts";
import type { TrainingData } from "../loop.ts";
import type { HostBatch } from "../step.ts";
import type { PreferenceRows } from "./rows.ts";

export interface TuningBatchOptions {
  /** Tokens of a packed row; also of the longest text with what is before it. */
  length: number;
  packing: boolean;
  /** Texts that are compared share the rows of their common beginning; with packing only. */
  sharePrompts: boolean;
  seed: number;
  shuffle: boolean;
  padId: number;
  /** Ids of virtual tokens, before each text. */
  prefix: readonly number[];
}

/** Rows of examples in an endless sequence of epochs. */
export class TuningRows implements TrainingData {
  readonly rowsPerEpoch: number;
  readonly #examples: readonly TuningExample[];
  readonly #options: TuningBatchOptions;
  /** Examples of each row, before they are shuffled. */
  readonly #rows: readonly (readonly number[])[];
  /** Log-probabilities under the reference by example, where they were made before. */
  readonly #reference = new Map<TuningExample, readonly number[]>();
  #order: { epoch: number; rows: readonly number[] } | undefined;

  constructor(examples: readonly TuningExample[], options: TuningBatchOptions) {
    this.#examples = examples;
    this.#options = options;
    const lengths = examples.map((example) =>
      textsOf(example).reduce((total, { tokens }) => total + tokens.length + options.prefix.length, 0),
    );
    // Comparisons are of texts in one micro-batch: each row has all that belongs to an example.
    this.#rows =
      options.packing && examples[0]?.kind === "text"
        ? packFirstFit(lengths, options.length)
        : examples.map((_, index) => [index]);
    this.rowsPerEpoch = this.#rows.length;
  }

  batch(firstSample: number, numSequences: number): HostBatch {
    const examples: TuningExample[] = [];
    for (let sample = firstSample; sample < firstSample + numSequences; sample++) {
      const row = this.#orderOf(Math.floor(sample / this.rowsPerEpoch))[sample % this.rowsPerEpoch];
      for (const index of this.#rows[row]) examples.push(this.#examples[index]);
    }
    return this.#batchOf(examples);
  }

  /** Measures every example once under the reference; batches carry it from then on. For pairs: KTO's mismatched texts depend on the batch. */
  precomputeReference(measure: (batch: HostBatch) => Float64Array, numSequences: number): void {
    for (let first = 0; first < this.#examples.length; first += numSequences) {
      const examples = this.#examples.slice(first, first + numSequences);
      if (examples[0].kind !== "preference") return;
      const measured = measure(batchOf(examples, this.#options));
      for (const [index, example] of examples.entries())
        this.#reference.set(example, [measured[2 * index], measured[2 * index + 1]]);
    }
  }

  #batchOf(examples: readonly TuningExample[]): HostBatch {
    const batch = batchOf(examples, this.#options);
    const known = examples.flatMap((example) => this.#reference.get(example) ?? []);
    if (batch.preference === undefined || known.length === 0) return batch;
    return { ...batch, preference: { ...batch.preference, reference: Float64Array.from(known) } };
  }

  /** Every row once, in order. */
  *all(numSequences: number): Generator<HostBatch> {
    for (let first = 0; first < this.#rows.length; first += numSequences) {
      const rows = this.#rows.slice(first, first + numSequences);
      yield this.#batchOf(rows.flatMap((row) => row.map((index) => this.#examples[index])));
    }
  }

  #orderOf(epoch: number): readonly number[] {
    if (this.#order?.epoch === epoch) return this.#order.rows;
    const { shuffle, seed } = this.#options;
    const rows = shuffle
      ? shuffled(this.rowsPerEpoch, seed, epoch)
      : Array.from({ length: this.rowsPerEpoch }, (_, i) => i);
    this.#order = { epoch, rows };
    return rows;
  }
}

/** One micro-batch of examples of one kind. Throws ConfigError for one that KTO cannot do with. */
export function batchOf(
  examples: readonly TuningExample[],
  options: Omit<TuningBatchOptions, "seed" | "shuffle">,
): HostBatch {
  const { length, packing, sharePrompts, padId, prefix } = options;
  const given = examples.flatMap(textsOf);
  const isUnpaired = examples[0]?.kind === "unpaired";
  const all = isUnpaired ? [...given, ...mismatchedTexts(given, length - prefix.length)] : given;
  const { texts, ...batch } = layOut(all, {
    layout: packing ? "packed" : "padded",
    padId,
    prefix,
    groups: sharePrompts ? textsWithOnePrompt(examples) : undefined,
  });
  if (examples[0]?.kind === "text") return batch;
  return {
    ...batch,
    preference: comparisons(examples, texts),
    base:
      prefix.length === 0
        ? undefined
        : batchOf(examples, { ...options, length: length - prefix.length, prefix: [] }),
  };
}

/** Texts by number, those of one prompt together: the two of a pair, a text and the mismatched one of its prompt. */
function textsWithOnePrompt(examples: readonly TuningExample[]): number[][] | undefined {
  switch (examples[0]?.kind) {
    case "preference":
      return examples.map((_, index) => [2 * index, 2 * index + 1]);
    case "unpaired":
      return examples.map((_, index) => [index, examples.length + index]);
    default:
      return undefined;
  }
}

function comparisons(examples: readonly TuningExample[], texts: PreferenceRows["texts"]): PreferenceRows {
  const pairs = examples.flatMap((example, index) =>
    example.kind === "preference"
      ? [
          {
            chosen: 2 * index,
            rejected: 2 * index + 1,
            chosenReward: example.chosenReward,
            rejectedReward: example.rejectedReward,
          },
        ]
      : [],
  );
  const unpaired = examples.flatMap((example, index) =>
    example.kind === "unpaired"
      ? [{ text: index, isDesirable: example.isDesirable, mismatched: examples.length + index }]
      : [],
  );
  return { texts, pairs, unpaired };
}

/**
 * Each prompt with the answer of the next text: what KTO's baseline is measured on. A long prompt may get a long answer, whose end is cut off
 * then: each text has at least one token of an answer.
 */
function mismatchedTexts(texts: readonly EncodedText[], maxLength: number): EncodedText[] {
  if (texts.length < 2) {
    throw new ConfigError("tune", "expected at least two texts in a micro-batch for kto, got one", {
      hint: "raise microBatch",
    });
  }
  return texts.map((text, index) => {
    const answer = texts[(index + 1) % texts.length];
    const [promptEnd, answerStart] = [text, answer].map(({ isTrained }) => isTrained.indexOf(1));
    const numAnswer = Math.min(answer.tokens.length - answerStart, maxLength - promptEnd);
    const join = <Values extends Int32Array | Uint8Array>(left: Values, right: Values): number[] => [
      ...left.subarray(0, promptEnd),
      ...right.subarray(answerStart, answerStart + numAnswer),
    ];
    return {
      tokens: Int32Array.from(join(text.tokens, answer.tokens)),
      isTrained: Uint8Array.from(join(text.isTrained, answer.isTrained)),
      numCutAnswer: answer.tokens.length - answerStart - numAnswer,
      numCutPrompt: 0,
    };
  });
}
