/**
 * A checkpoint of any format made ready for writing: checked against its configuration, under Hugging Face's names, in the dtype asked for,
 * with the vocabulary that its tokenizer has.
 */
import { CheckpointError, ConfigError, warn } from "../../../base/index.ts";
import { castView, openCheckpoint, renamedView } from "../../../checkpoint/index.ts";
import type { ModelCheckpoint, StoredDtype, TensorSource } from "../../../checkpoint/index.ts";
import { modelTensors, parseModelConfig } from "../../../models/index.ts";
import type { DecoderConfig } from "../../../models/index.ts";
import { loadTokenizer } from "../../../text/index.ts";
import type { Tokenizer } from "../../../text/index.ts";
import { tokenizerFolder } from "../tokenizerFolder.ts";

export type WeightDtype = "f32" | "bf16" | "f16";

export interface ConversionSource extends Disposable {
  readonly checkpoint: ModelCheckpoint;
  /** config.json as the source has it. */
  readonly json: Readonly<Record<string, unknown>>;
  readonly config: DecoderConfig;
  /** Under Hugging Face's names, none but weights. */
  readonly weights: TensorSource;
  /** dtype of the embedding, which stands for the model's. */
  readonly dtype: StoredDtype;
  /** undefined where there is none, or none that can be read. */
  readonly tokenizer: Tokenizer | undefined;
}

/** Opens and checks `path`. Throws CheckpointError, ConfigError, FileError. */
export async function openSource(
  path: string,
  { dtype, temporaryFolder }: { dtype: WeightDtype | undefined; temporaryFolder: string },
): Promise<ConversionSource> {
  let checkpoint = await openCheckpoint(path, { temporaryFolder });
  try {
    const tokenizer = readTokenizer(checkpoint);
    const padded = paddedVocabulary(checkpoint, tokenizer);
    if (padded !== undefined) {
      checkpoint[Symbol.dispose]();
      checkpoint = await openCheckpoint(path, { temporaryFolder, vocabSize: padded });
    }
    const json = withTokenIds(checkpoint, tokenizer);
    const config = parseModelConfig(json);
    if (tokenizer !== undefined && tokenizer.vocabSize > config.vocabSize) {
      throw new ConfigError(
        "convert",
        `expected a tokenizer of at most the ${config.vocabSize} tokens of ${path}, got one of ${tokenizer.vocabSize}`,
        { hint: "the tokenizer is of another model" },
      );
    }
    const named = renamedView(checkpoint.weights, modelTensors(config, checkpoint.weights));
    const weights = dtype === undefined ? named : castView(named, dtype);
    const opened = checkpoint;
    return {
      checkpoint,
      json,
      config,
      weights,
      dtype: weights.info(embeddingOf(weights)).dtype,
      tokenizer,
      [Symbol.dispose]: () => opened[Symbol.dispose](),
    };
  } catch (error) {
    checkpoint[Symbol.dispose]();
    throw error;
  }
}

function embeddingOf(weights: TensorSource): string {
  return weights.has("model.embed_tokens.weight") ? "model.embed_tokens.weight" : "transformer.wte.weight";
}

/** The tokenizer decides nothing but ids and padding: a model without one, or with one of a kind that is not known, is converted all the same. */
function readTokenizer(checkpoint: ModelCheckpoint): Tokenizer | undefined {
  if (checkpoint.tokenizerFiles.size === 0) return undefined;
  try {
    using files = tokenizerFolder(checkpoint, undefined);
    return loadTokenizer(files.tokenizerPath);
  } catch (error) {
    warn(
      `${checkpoint.path}: its tokenizer is copied unread: ${error instanceof Error ? error.message : String(error)}`,
    );
    return undefined;
  }
}

/** The vocabulary of a NeMo or Megatron model whose embedding is padded to a multiple of 128 rows; undefined for all others. */
function paddedVocabulary(checkpoint: ModelCheckpoint, tokenizer: Tokenizer | undefined): number | undefined {
  if (checkpoint.kind !== "nemo" || checkpoint.vocabSize !== undefined || tokenizer === undefined)
    return undefined;
  const [numRows] = checkpoint.weights.info(embeddingOf(checkpoint.weights)).shape;
  return tokenizer.vocabSize < numRows ? tokenizer.vocabSize : undefined;
}

/** Containers without config.json leave token ids to the tokenizer. */
function withTokenIds(
  { config, kind, path }: ModelCheckpoint,
  tokenizer: Tokenizer | undefined,
): Record<string, unknown> {
  if (typeof config !== "object" || config === null) {
    throw new CheckpointError(
      "convert",
      `expected a model with its configuration at ${path}, got weights alone`,
      {
        hint: "name the folder with config.json",
      },
    );
  }
  if (kind !== "nemo" || tokenizer === undefined) return { ...config };
  const { bosId, eosId, padId } = tokenizer;
  return { ...config, bos_token_id: bosId ?? null, eos_token_id: eosId, pad_token_id: padId ?? null };
}
