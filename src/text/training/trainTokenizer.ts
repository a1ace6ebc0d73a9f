/**
 * Trains a byte-pair encoding with byte fallback from texts that the caller gives. Knows nothing of files.
 * Invariants: the result depends on the texts and the options alone, not on the order of the texts; memory is bounded by
 * `sampleBytes` (about eight times as much at the worst); every byte has a piece, so that nothing is out of vocabulary.
 */
import { setImmediate } from "node:timers/promises";
import { ConfigError, DataError } from "../../base/index.ts";
import { BpeTokenizer } from "../bpe/bpeTokenizer.ts";
import { byteOf, bytePieceOf, standardSpecialTokens } from "../bpe/definition.ts";
import { MergeLearner } from "./mergeLearner.ts";
import { TextSample } from "./textSample.ts";
import { WordCounts } from "./wordCounts.ts";

const component = "tokenizer";
/** How long the thread is held before signals and timers get their turn. */
const holdMs = 50;

export interface TrainingProgress {
  /** "read": bytes seen; "count": bytes of the sample counted; "merge": pieces made. */
  phase: "read" | "count" | "merge";
  done: number;
  /** Undefined where it cannot be known: the caller knows how much it will give to "read". */
  total: number | undefined;
}

export interface TokenizerTrainingOptions {
  texts: Iterable<string> | AsyncIterable<string>;
  /** The number of pieces, special and byte pieces included. Fewer come out when the texts hold too few repeated pairs. */
  vocabSize: number;
  /** Special tokens besides <pad>, <unk>, <s> and </s>, which get ids 0 to 3; these follow from id 4. */
  specialTokens?: readonly string[];
  /** The most text to learn from, in UTF-8 bytes; of more, a sample by hash is taken. Default 200 MB. */
  sampleBytes?: number;
  /** The share of characters that get a piece of their own; rarer ones are spelt in bytes. Default 0.9995. */
  characterCoverage?: number;
  /** The longest piece in characters. Default 24. */
  maxPieceCharacters?: number;
  /** Called often; must be quick. */
  onProgress?: (progress: TrainingProgress) => void;
  signal?: AbortSignal;
}

/**
 * Trains a tokenizer. Throws ConfigError for impossible options, DataError when there is no text, and the signal's reason when
 * it is aborted.
 */
export async function trainTokenizer(options: TokenizerTrainingOptions): Promise<BpeTokenizer> {
  const { vocabSize, maxPieceCharacters = 24, characterCoverage = 0.9995 } = options;
  const specialTokens = [...Object.values(standardSpecialTokens), ...(options.specialTokens ?? [])];
  checkSpecialTokens(specialTokens);
  const pieces = [...specialTokens, ...Array.from({ length: 256 }, (_, byte) => bytePieceOf(byte))];
  checkNumbers(options, pieces.length);
  const turn = new Turn(options);

  const words = await countWords(options, turn);
  // A third at most: a small vocabulary is better spent on merges than on rare ideographs.
  const alphabet = words.alphabet(
    characterCoverage,
    Math.max(1, Math.floor((vocabSize - pieces.length) / 3)),
  );
  const forbidden = new Set(pieces);
  const idOf = new Map<number, number>();
  for (const codePoint of alphabet) {
    idOf.set(codePoint, pieces.length);
    pieces.push(String.fromCodePoint(codePoint));
  }

  const learner = new MergeLearner(words.sequences(idOf), {
    pieces,
    forbidden,
    maxPieceCharacters,
    minCount: 2,
  });
  while (pieces.length < vocabSize && learner.learnNext()) {
    await turn.pass({ phase: "merge", done: pieces.length, total: vocabSize });
  }
  options.onProgress?.({ phase: "merge", done: pieces.length, total: pieces.length });
  return new BpeTokenizer({ pieces, merges: learner.merges, specialTokens });
}

async function countWords(options: TokenizerTrainingOptions, turn: Turn): Promise<WordCounts> {
  const sample = new TextSample(options.sampleBytes ?? 200e6);
  for await (const text of options.texts) {
    sample.add(text);
    await turn.pass({ phase: "read", done: sample.seenBytes, total: undefined });
  }
  if (sample.keptBytes === 0) {
    throw new DataError(component, "expected text to train a tokenizer from, got none", {
      hint: sample.seenBytes === 0 ? "are the files empty?" : "raise sampleBytes",
    });
  }
  options.onProgress?.({ phase: "read", done: sample.seenBytes, total: sample.seenBytes });
  const words = new WordCounts();
  let countedBytes = 0;
  for (const bytes of sample) {
    words.add(bytes);
    countedBytes += bytes.length;
    await turn.pass({ phase: "count", done: countedBytes, total: sample.keptBytes });
  }
  options.onProgress?.({ phase: "count", done: sample.keptBytes, total: sample.keptBytes });
  return words;
}

/** Lets the event loop turn, and reports, when the thread was held long enough. */
class Turn {
  readonly #options: TokenizerTrainingOptions;
  #lastMs = performance.now();

  constructor(options: TokenizerTrainingOptions) {
    this.#options = options;
  }

  async pass(progress: TrainingProgress): Promise<void> {
    if (performance.now() - this.#lastMs < holdMs) return;
    this.#options.onProgress?.(progress);
    await setImmediate();
    this.#options.signal?.throwIfAborted();
    this.#lastMs = performance.now();
  }
}

function checkNumbers(options: TokenizerTrainingOptions, numFixed: number): void {
  const { vocabSize, sampleBytes = 1, characterCoverage = 1, maxPieceCharacters = 1 } = options;
  const fail = (expected: string, got: number): never => {
    throw new ConfigError(component, `expected ${expected}, got ${got}`);
  };
  // Ids are int32 in token files and the largest vocabulary in use is some 260,000.
  if (!Number.isInteger(vocabSize) || vocabSize <= numFixed || vocabSize > 1 << 20)
    fail(`vocabSize of ${numFixed + 1} (bytes, special tokens and one character) to ${1 << 20}`, vocabSize);
  if (!(sampleBytes >= 1)) fail("sampleBytes of at least 1", sampleBytes);
  if (!(characterCoverage > 0 && characterCoverage <= 1))
    fail("characterCoverage above 0 and at most 1", characterCoverage);
  if (!Number.isInteger(maxPieceCharacters) || maxPieceCharacters < 1)
    fail("maxPieceCharacters of at least 1", maxPieceCharacters);
}

function checkSpecialTokens(tokens: readonly string[]): void {
  const seen = new Set<string>();
  for (const token of tokens) {
    const fault = specialTokenFault(token, seen);
    if (fault !== undefined) {
      throw new ConfigError(component, `expected ${fault}, got ${JSON.stringify(token)}`);
    }
    seen.add(token);
  }
}

function specialTokenFault(token: string, seen: ReadonlySet<string>): string | undefined {
  // A single character would take the place of that character's own piece.
  if (Array.from(token).length < 2) return "special tokens of two characters or more";
  if (byteOf(token) !== undefined) return "special tokens that are not spelt like a byte piece";
  if (!token.isWellFormed()) return "special tokens without lone surrogates";
  return seen.has(token) ? "special tokens named once (the first four are built in)" : undefined;
}
