/**
 * What is wanted of prompt rows beside draws: log-probabilities of the tokens that follow them, or sums of their hidden states.
 * Logits exist for a bounded number of rows at a time.
 */
import { embedding } from "../../tensor/index.ts";
import type { Context, PendingValues, Tensor } from "../../tensor/index.ts";
import type { StepPiece } from "../scheduler/scheduler.ts";
import { RankedRows } from "./rankedRows.ts";
import type { PieceOutput, RunnerTask } from "./task.ts";

type Piece = StepPiece<RunnerTask>;

/** Rows of the step whose next tokens are measured, all pieces together; a row with alternatives stands there once for each of them. */
interface MeasuredRows {
  rows: number[];
  targets: number[];
  /** By piece: where its rows begin in `rows`. */
  starts: readonly number[];
  numTop: number;
}

export interface QueuedOutputs {
  readonly isReady: boolean;
  /** By piece. */
  wait(): (PieceOutput | undefined)[];
}

export function queueOutputs(
  context: Context,
  hidden: Tensor,
  {
    pieces,
    logits,
    maxRows,
  }: { pieces: readonly Piece[]; logits: (hidden: Tensor) => Tensor; maxRows: number },
): QueuedOutputs | undefined {
  if (pieces.every(({ outputBegin, outputEnd }) => outputBegin === outputEnd)) return undefined;
  const measured = measuredRows(pieces);
  const ranked = rankRows(context, hidden, { measured, logits, maxRows });
  const sums = sumHidden(context, hidden, pieces);
  return {
    get isReady() {
      return ranked?.isReady ?? true;
    },
    wait() {
      const rankedRow = ranked?.wait();
      ranked?.dispose();
      return pieces.map((piece, index): PieceOutput | undefined => {
        const sum = sums[index];
        if (sum !== undefined) return { kind: "hidden", sum: Float32Array.from(sum.wait()) };
        const { outputs } = piece.sequence.task;
        const numRows = piece.outputEnd - piece.outputBegin;
        if (numRows === 0 || outputs?.kind !== "logprobs" || rankedRow === undefined) return undefined;
        const read = (first: number, count: number) =>
          Array.from({ length: count }, (_, i) =>
            rankedRow(first + i, measured.targets[first + i], outputs.numMostLikely),
          );
        const start = measured.starts[index];
        const alternatives = read(start + numRows, alternativesIn(piece).length);
        return { kind: "logprobs", tokens: read(start, numRows), alternatives };
      });
    },
  };
}

function measuredRows(pieces: readonly Piece[]): MeasuredRows {
  const rows: number[] = [];
  const targets: number[] = [];
  let numTop = 0;
  let firstRow = 0;
  const starts = pieces.map((piece) => {
    const { sequence, start, numRows, outputBegin, outputEnd } = piece;
    const begin = rows.length;
    const { outputs } = sequence.task;
    if (outputs?.kind === "logprobs") {
      if (outputBegin < outputEnd) numTop = Math.max(numTop, outputs.numMostLikely);
      for (let position = outputBegin; position < outputEnd; position++) {
        rows.push(firstRow + position - start);
        targets.push(sequence.tokens[position + 1]);
      }
      for (const { position, token } of alternativesIn(piece)) {
        rows.push(firstRow + position - start);
        targets.push(token);
      }
    }
    firstRow += numRows;
    return begin;
  });
  return { rows, targets, starts, numTop };
}

/** The alternatives that this piece's outputs answer. */
function alternativesIn({
  sequence,
  outputBegin,
  outputEnd,
}: Piece): readonly { readonly position: number; readonly token: number }[] {
  const { outputs } = sequence.task;
  if (outputs?.kind !== "logprobs") return [];
  return outputs.alternatives.filter(({ position }) => outputBegin <= position && position < outputEnd);
}

function rankRows(
  context: Context,
  hidden: Tensor,
  {
    measured,
    logits,
    maxRows,
  }: { measured: MeasuredRows; logits: (hidden: Tensor) => Tensor; maxRows: number },
): RankedRows | undefined {
  const { rows, targets, numTop } = measured;
  if (rows.length === 0) return undefined;
  const ranked = new RankedRows(context, { numRows: rows.length, numTop });
  for (let first = 0; first < rows.length; first += maxRows) {
    context.scope(() => {
      const part = rows.slice(first, first + maxRows);
      const gathered = embedding(context, context.tensor(part, [part.length], "i32"), hidden);
      const next = context.tensor(targets.slice(first, first + maxRows), [part.length], "i32");
      ranked.measure(first, logits(gathered), next);
    });
  }
  ranked.read();
  return ranked;
}

function sumHidden(
  context: Context,
  hidden: Tensor,
  pieces: readonly Piece[],
): (PendingValues | undefined)[] {
  let firstRow = 0;
  return pieces.map(({ sequence, start, numRows, outputBegin, outputEnd }) => {
    const begin = firstRow + outputBegin - start;
    firstRow += numRows;
    if (outputBegin === outputEnd || sequence.task.outputs?.kind !== "hidden") return undefined;
    const y = context.full([hidden.width], "f32", 0);
    const x = context.adopt(hidden.rows(begin, begin + outputEnd - outputBegin));
    context.device.run("columnSum", { x, y, numRows: x.numRows, width: hidden.width, beta: 0 });
    return y.readback();
  });
}
