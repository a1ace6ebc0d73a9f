/**
 * One optimizer step on preferences. The policy's token losses are made on the tape; the reference's come from the same weights with the
 * adapter off, or with the batch; the host turns them into one factor for each text, which seeds the backward pass.
 */
import { invariant } from "../../base/index.ts";
import type { Adapter, Decoder } from "../../models/index.ts";
import { Tape } from "../../tensor/index.ts";
import type { Context, RecomputePolicy, Tensor } from "../../tensor/index.ts";
import type { AdamW } from "../optimizer.ts";
import { ignoreIndex, targetRowsOf, uploadBatch } from "../step.ts";
import type { HostBatch, PendingStep, StepOptions, StepRunner } from "../step.ts";
import { pairLoss, unpairedLoss } from "./objective.ts";
import type { PreferenceObjective, TextScore } from "./objective.ts";
import type { PreferenceRows } from "./rows.ts";

export interface PreferenceMeasures {
  loss: number;
  /** Share of pairs whose chosen text has the higher reward. */
  accuracy: number;
  /** Mean of beta times the difference of rewards. */
  margin: number;
  /** Pairs, and texts without a pair, that these are means of. */
  numItems: number;
}

/** Losses of the rows that the head is run for; of all where `rows` is undefined. */
interface HeadLosses {
  tensor: Tensor;
  rows: Int32Array | undefined;
}

interface Totals {
  loss: number;
  numRight: number;
  margin: number;
  numItems: number;
}

export interface PreferenceStepParts {
  decoder: Decoder;
  optimizer: AdamW;
  adapter: Adapter | undefined;
  objective: PreferenceObjective;
  recompute: RecomputePolicy;
  chunkBytes?: number | undefined;
}

export class PreferenceStep implements StepRunner {
  readonly #context: Context;
  readonly #parts: PreferenceStepParts;
  /** Passes and numbers of rows, as powers of two, that the device has timed products at. */
  readonly #timed = new Set<string>();
  /** Of the last step. */
  measures: PreferenceMeasures | undefined;

  constructor(context: Context, parts: PreferenceStepParts) {
    this.#context = context;
    this.#parts = parts;
  }

  run(microBatches: readonly HostBatch[], options: StepOptions): PendingStep {
    const { adapter, optimizer } = this.#parts;
    const numItems = microBatches.reduce((total, batch) => total + countItems(rowsOf(batch)), 0);
    const totals = emptyTotals();
    for (const [microBatch, batch] of microBatches.entries()) {
      if (adapter !== undefined)
        adapter.dropoutBits = { seed: options.seed * 2 ** 24 + options.step, microBatch };
      this.#withTuning("training", batch, () => this.#accumulate(batch, { numItems, totals }));
    }
    if (adapter !== undefined) adapter.dropoutBits = undefined;
    optimizer.step(this.#context, options);
    const norm = optimizer.norm.readback();
    this.measures = measuresOf(totals);
    const { loss } = this.measures;
    return {
      get isReady() {
        return norm.isReady;
      },
      wait: () => ({ loss, numTargets: numItems, gradientNorm: norm.wait()[0] }),
    };
  }

  /** Loss and accuracy without an update. */
  measure(batches: Iterable<HostBatch>): PreferenceMeasures {
    const totals = emptyTotals();
    const add = (batch: HostBatch): void => {
      const { losses, reference } = this.#scores(batch);
      this.#factors(batch, { losses: rowLosses(batch, losses), reference, numItems: 1, totals });
    };
    for (const batch of batches)
      this.#withTuning("scoring", batch, () => this.#context.scope(() => add(batch)));
    return measuresOf(totals);
  }

  /** Log-probability of each text under the weights with the adapter off. */
  referenceOf(batch: HostBatch): Float64Array {
    return this.#withTuning("scoring", batch, () => this.#referenceOf(batch));
  }

  #referenceOf(batch: HostBatch): Float64Array {
    const { decoder } = this.#parts;
    const base = batch.base ?? batch;
    return this.#context.scope(() =>
      decoder.withAdapter(undefined, () => sumTexts(rowsOf(base), rowLosses(base, this.#tokenLosses(base)))),
    );
  }

  /**
   * Runs `body` with products timed at the first batch of about so many rows. Hardly two batches have the same number: others take the
   * algorithms of those nearby, instead of waiting for timings whenever their rows happen to be whole tiles.
   */
  #withTuning<Result>(pass: "training" | "scoring", { tokens }: HostBatch, body: () => Result): Result {
    const size = `${pass} ${Math.floor(Math.log2(tokens.length))}`;
    const isTimed = this.#timed.has(size);
    this.#timed.add(size);
    return this.#context.withTuning(isTimed ? "none" : "all", body);
  }

  #accumulate(batch: HostBatch, { numItems, totals }: { numItems: number; totals: Totals }): void {
    const context = this.#context;
    using tape = new Tape(this.#parts.recompute);
    context.scope(() => {
      const { losses, reference } = this.#scores(batch, tape);
      const rowFactors = this.#factors(batch, {
        losses: rowLosses(batch, losses),
        reference,
        numItems,
        totals,
      });
      const { tensor, rows } = losses;
      const factors = rows === undefined ? rowFactors : Float64Array.from(rows, (row) => rowFactors[row]);
      const gradient = context.tensor(factors, [factors.length], "f32");
      tape.backward(context, [{ tensor, gradient }]);
    });
  }

  #scores(batch: HostBatch, tape?: Tape): { losses: HeadLosses; reference: Float64Array } {
    const reference = rowsOf(batch).reference ?? this.#referenceOf(batch);
    return { losses: this.#context.withTape(tape, () => this.#tokenLosses(batch)), reference };
  }

  #tokenLosses(batch: HostBatch): HeadLosses {
    const { decoder, chunkBytes } = this.#parts;
    const rows = targetRowsOf(batch.targets);
    const { sequences, ...targets } = uploadBatch(this.#context, batch, rows);
    const chunks = chunkBytes === undefined ? {} : { chunkBytes };
    const options = { ...targets, ignoreIndex, ...chunks };
    return { tensor: decoder.tokenLosses(this.#context, sequences, options), rows };
  }

  /** The gradient of the step's mean loss with respect to each row's loss; adds to the totals. */
  #factors(
    batch: HostBatch,
    {
      losses,
      reference,
      numItems,
      totals,
    }: { losses: Float64Array; reference: Float64Array; numItems: number; totals: Totals },
  ): Float64Array {
    const { objective } = this.#parts;
    const rows = rowsOf(batch);
    const policy = sumTexts(rows, losses);
    const scores = rows.texts.map(({ begin, end }, text): TextScore => {
      const learnt = batch.targets.subarray(begin, end).filter((target) => target !== ignoreIndex);
      return { policy: policy[text], reference: reference[text], numTokens: learnt.length };
    });
    const derivatives = new Float64Array(rows.texts.length);
    const rewardOf = (text: number): number => scores[text].policy - scores[text].reference;
    for (const { chosen, rejected, ...rewards } of rows.pairs) {
      const result = pairLoss({ chosen: scores[chosen], rejected: scores[rejected], ...rewards }, objective);
      derivatives[chosen] += result.dchosen;
      derivatives[rejected] += result.drejected;
      const margin = objective.beta * (rewardOf(chosen) - rewardOf(rejected));
      addItem(totals, { loss: result.loss, margin, isRight: margin > 0 });
    }
    const mismatched = rows.unpaired.map((item) => rewardOf(item.mismatched));
    const baseline = Math.max(0, mismatched.reduce((sum, reward) => sum + reward, 0) / mismatched.length);
    for (const { text, isDesirable } of rows.unpaired) {
      const result = unpairedLoss(scores[text], { isDesirable, baseline }, objective);
      derivatives[text] += result.derivative;
      const margin = objective.beta * (rewardOf(text) - baseline) * (isDesirable ? 1 : -1);
      addItem(totals, { loss: result.loss, margin, isRight: margin > 0 });
    }
    const factors = new Float64Array(losses.length);
    // A token's loss is minus its log-probability.
    for (const [text, { begin, end }] of rows.texts.entries())
      factors.fill(-derivatives[text] / numItems, begin, end);
    return factors;
  }

  dispose(): void {}

  [Symbol.dispose](): void {
    this.dispose();
  }
}

function rowsOf({ preference }: HostBatch): PreferenceRows {
  invariant(preference !== undefined, "a batch of preferences says which rows are which text");
  return preference;
}

/** Losses of all rows of a batch, 0 where the head was not run. */
function rowLosses({ targets }: HostBatch, { tensor, rows }: HeadLosses): Float64Array {
  const values = tensor.toArray();
  if (rows === undefined) return values;
  const all = new Float64Array(targets.length);
  for (const [index, row] of rows.entries()) all[row] = values[index];
  return all;
}

const countItems = ({ pairs, unpaired }: PreferenceRows): number => pairs.length + unpaired.length;

function sumTexts({ texts }: PreferenceRows, losses: Float64Array): Float64Array {
  return Float64Array.from(texts, ({ begin, end }) => {
    let sum = 0;
    for (let row = begin; row < end; row++) sum -= losses[row];
    return sum;
  });
}

const emptyTotals = (): Totals => ({ loss: 0, numRight: 0, margin: 0, numItems: 0 });

function addItem(
  totals: Totals,
  { loss, margin, isRight }: { loss: number; margin: number; isRight: boolean },
): void {
  totals.loss += loss;
  totals.margin += margin;
  totals.numRight += Number(isRight);
  totals.numItems++;
}

function measuresOf({ loss, numRight, margin, numItems }: Totals): PreferenceMeasures {
  const count = Math.max(1, numItems);
  return { loss: loss / count, accuracy: numRight / count, margin: margin / count, numItems };
}
