/** What changes the logits before a draw: biases, penalties for tokens that occurred, and constraints, in that order. */
import type { Context, Tensor } from "../../tensor/index.ts";
import type { StepPiece } from "../scheduler/scheduler.ts";
import type { RunnerTask } from "./task.ts";

type Piece = StepPiece<RunnerTask>;

/** Biases of a draw by token, with the end tokens ruled out where it is too early for them. */
function biasesOf({ sequence, numDrawn }: Piece): ReadonlyMap<number, number> {
  const { sampling, endTokens, allowedTokens } = sequence.task;
  const biases = new Map<number, number>();
  for (const [token, bias] of sampling.logitBias) biases.set(token, (biases.get(token) ?? 0) + bias);
  // A constraint looks after its own end.
  if (numDrawn < sampling.minTokens && allowedTokens === undefined)
    for (const token of endTokens) biases.set(token, -Infinity);
  return biases;
}

function hasBiases({ sequence, numDrawn }: Piece): boolean {
  const { sampling, endTokens, allowedTokens } = sequence.task;
  const isEarly = numDrawn < sampling.minTokens && endTokens.length > 0 && allowedTokens === undefined;
  return isEarly || sampling.logitBias.length > 0;
}

function hasPenalties({ sequence }: Piece): boolean {
  const { repetitionPenalty, presencePenalty, frequencyPenalty } = sequence.task.sampling;
  return repetitionPenalty !== 1 || presencePenalty !== 0 || frequencyPenalty !== 0;
}

/** Whether the draw is not from the model's own logits. */
export function isAdjusted(piece: Piece): boolean {
  return hasBiases(piece) || hasPenalties(piece) || piece.sequence.task.allowedTokens !== undefined;
}

/** Changes the first draws.length rows of logits f32 (B, V) in place. */
export function adjustLogits(context: Context, logits: Tensor, draws: readonly Piece[]): void {
  if (draws.some(hasBiases)) addBiases(context, logits, draws);
  if (draws.some(hasPenalties)) penalise(context, logits, draws);
  const masked = draws.flatMap((piece, row) =>
    piece.sequence.task.allowedTokens === undefined
      ? []
      : [{ row, allowed: piece.sequence.task.allowedTokens() }],
  );
  if (masked.length === 0) return;
  const numWords = Math.ceil(logits.width / 32);
  const words = new Int32Array(masked.length * numWords);
  for (const [index, { allowed }] of masked.entries()) words.set(allowed, index * numWords);
  const rows = masked.map(({ row }) => row);
  context.device.run("maskLogits", {
    logits,
    rows: context.tensor(rows, [rows.length], "i32"),
    allowed: context.empty([masked.length, numWords], "i32").setBytes(new Uint8Array(words.buffer)),
    numMasks: masked.length,
    vocabSize: logits.width,
  });
}

function addBiases(context: Context, logits: Tensor, draws: readonly Piece[]): void {
  const perDraw = draws.map(biasesOf);
  const maxEntries = Math.max(1, ...perDraw.map(({ size }) => size));
  const tokens = new Int32Array(draws.length * maxEntries);
  const biases = new Float32Array(draws.length * maxEntries);
  for (const [row, entries] of perDraw.entries()) {
    let place = row * maxEntries;
    for (const [token, bias] of entries) {
      tokens[place] = token;
      biases[place++] = bias;
    }
  }
  const shape = [draws.length, maxEntries];
  context.device.run("biasLogits", {
    logits,
    tokens: context.tensor(tokens, shape, "i32"),
    biases: context.tensor(biases, shape, "f32"),
    entryLengths: context.tensor(
      perDraw.map(({ size }) => size),
      [draws.length],
      "i32",
    ),
    numRows: draws.length,
    vocabSize: logits.width,
    maxEntries,
  });
}

/** Repetition counts the prompt too, as Hugging Face has it; presence and frequency only what was drawn, as OpenAI's formula says. */
function penalise(context: Context, logits: Tensor, draws: readonly Piece[]): void {
  const repeats = draws.some(({ sequence }) => sequence.task.sampling.repetitionPenalty !== 1);
  if (repeats) {
    const none = draws.map(() => 0);
    runPenalties(context, logits, {
      histories: draws.map(({ sequence }) => sequence.tokens),
      repetition: draws.map(({ sequence }) => sequence.task.sampling.repetitionPenalty),
      presence: none,
      frequency: none,
    });
  }
  const presence = draws.map(({ sequence }) => sequence.task.sampling.presencePenalty);
  const frequency = draws.map(({ sequence }) => sequence.task.sampling.frequencyPenalty);
  if ([...presence, ...frequency].every((value) => value === 0)) return;
  runPenalties(context, logits, {
    histories: draws.map(({ sequence }) => sequence.tokens.slice(sequence.numPromptTokens)),
    repetition: draws.map(() => 1),
    presence,
    frequency,
  });
}

function runPenalties(
  context: Context,
  logits: Tensor,
  {
    histories,
    repetition,
    presence,
    frequency,
  }: {
    histories: readonly (readonly number[])[];
    repetition: readonly number[];
    presence: readonly number[];
    frequency: readonly number[];
  },
): void {
  const numRows = histories.length;
  const maxHistory = Math.max(1, ...histories.map(({ length }) => length));
  const history = new Int32Array(numRows * maxHistory);
  for (const [row, tokens] of histories.entries()) history.set(tokens, row * maxHistory);
  const perRow = (values: readonly number[]): Tensor => context.tensor(values, [numRows], "f32");
  context.device.run("applyPenalties", {
    logits,
    history: context.tensor(history, [numRows, maxHistory], "i32"),
    historyLengths: context.tensor(
      histories.map(({ length }) => length),
      [numRows],
      "i32",
    ),
    repetition: perRow(repetition),
    presence: perRow(presence),
    frequency: perRow(frequency),
    numRows,
    vocabSize: logits.width,
    maxHistory,
  });
}
