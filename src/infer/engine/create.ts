/** An engine from its parts: a decoder in this thread, a cache of a given size, a tokenizer. */
import { ConfigError } from "../../base/index.ts";
import type { CacheFormat, Decoder } from "../../models/index.ts";
import { cacheFormats, countParameters } from "../../models/index.ts";
import type { Context } from "../../tensor/index.ts";
import type { Tokenizer } from "../../text/index.ts";
import { GrammarCompiler } from "../constraint/compiler.ts";
import { ModelRunner } from "../runner/modelRunner.ts";
import type { AdapterSlots } from "./adapters.ts";
import { EngineCore } from "./core.ts";

export interface EngineOptions {
  tokenizer: Tokenizer;
  /** Tokens that end a sequence. */
  endTokens: readonly number[];
  /** Tokens of context that the cache holds, all sequences together. */
  cacheTokens: number;
  /** What it holds keys and values as: the model's dtype ("auto", default), or 8 bits, half of bf16's memory. */
  kvCache?: CacheFormat | undefined;
  /** Longest prompt and answer together. Default: the model's, or what the cache holds. */
  maxContext?: number | undefined;
  /** Tokens of one block. */
  blockSize?: number | undefined;
  /** Sequences that run at once. */
  maxSequences?: number | undefined;
  /** Rows of a step, prompt pieces and decoding sequences together. */
  maxStepRows?: number | undefined;
  /** Finds prompts in the cache. Default true. */
  reusesPrefixes?: boolean | undefined;
  /** Bound on the logits of prompt rows that exist at once. Default 256 MiB on a GPU, 64 elsewhere. */
  maxLogitsBytes?: number | undefined;
  /** Prepares now (graphs of all batch sizes, constrained output) what the first requests would wait for. Default false. */
  warmsUp?: boolean | undefined;
  adapters?: AdapterSlots | undefined;
  /** Virtual tokens before every prompt, of the adapter that the decoder has on; the context is shorter by them. */
  numVirtualTokens?: number | undefined;
  /** Frees what lies under the engine when it is disposed. */
  release?: (() => void) | undefined;
}

/** Sixteen: see docs/decisions/0019-engine.md. */
export const defaultBlockSize = 16;

/** Allocates the cache. Throws OutOfMemoryError, ConfigError. */
export function createEngine(context: Context, decoder: Decoder, options: EngineOptions): EngineCore {
  const { tokenizer, blockSize = defaultBlockSize, cacheTokens, numVirtualTokens = 0 } = options;
  const { kvCache = "auto" } = options;
  if (!cacheFormats.includes(kvCache))
    throw new ConfigError("engine", `expected kvCache to be ${cacheFormats.join(" or ")}, got '${kvCache}'`);
  const { config } = decoder;
  const numBlocks = Math.floor(cacheTokens / blockSize);
  if (numBlocks < 1) {
    throw new ConfigError(
      "engine",
      `expected a cache of at least one block of ${blockSize} tokens, got ${cacheTokens}`,
    );
  }
  const maxContext = Math.min(
    options.maxContext ?? config.maxPositions,
    config.maxPositions,
    numBlocks * blockSize,
  );
  const maxStepRows = options.maxStepRows ?? 2048;
  const maxSequences = Math.min(options.maxSequences ?? 256, maxStepRows);
  const numTokens = Math.min(tokenizer.vocabSize, config.vocabSize);
  const runner = new ModelRunner(context, decoder, {
    blockSize,
    numBlocks,
    kvCache,
    maxContext,
    maxSequences,
    numTokens,
    maxStepRows,
    // On a GPU at 256,000 tokens this is 262 rows, where the head's product is no longer bound by reading its weight.
    maxLogitsBytes: options.maxLogitsBytes ?? (context.device.kind === "cuda" ? 256 : 64) * 2 ** 20,
    choosesAdapters: options.adapters !== undefined,
  });
  const constraints = new GrammarCompiler(tokenizer, numTokens);
  if (options.warmsUp === true) {
    constraints.warmUp();
    // Elsewhere a capture is quick, and the steps that it takes are not.
    if (context.device.kind === "cuda") runner.warmUp(maxSequences);
  }
  return new EngineCore({
    runner,
    tokenizer,
    info: {
      maxContext: maxContext - numVirtualTokens,
      vocabSize: numTokens,
      width: config.width,
      numParameters: countParameters(config),
      dtype: decoder.dtype,
      quantise: decoder.quantise ?? null,
      kvCache: kvCache === "auto" ? decoder.dtype : kvCache,
      device: context.device.description,
      adapters: [],
    },
    scheduler: { numBlocks, blockSize, maxStepRows, maxSequences, reusesPrefixes: options.reusesPrefixes },
    endTokens: options.endTokens,
    constraints,
    adapters: options.adapters,
    promptPrefix: Array.from({ length: numVirtualTokens }, (_, i) => config.vocabSize + i),
    release: options.release,
  });
}
