/** What a conversion writes: a Hugging Face folder or a `.nemo`, each with all that belongs to the model. */
import { makeFolder, note } from "../../../base/index.ts";
import {
  defaultShardBytes,
  megatronConfig,
  tensorPieces,
  writeCheckpointFolder,
  writeNemo,
} from "../../../checkpoint/index.ts";
import type { TensorSource } from "../../../checkpoint/index.ts";
import { cardText, writeCompanions } from "./companions.ts";
import type { CardOptions } from "./companions.ts";
import type { ConversionSource } from "./source.ts";

export interface Labels {
  card: CardOptions;
  title: string;
}

/** Writes a Hugging Face folder. Throws FileError. */
export function writeFolder(
  source: ConversionSource,
  weights: TensorSource,
  { folder, labels, maxShardBytes }: { folder: string; labels: Labels; maxShardBytes: number | undefined },
): void {
  makeFolder("convert", folder);
  writeCompanions(source, folder, labels);
  const headers = [...weights.names()].map((name) => ({ name, ...weights.info(name) }));
  writeCheckpointFolder(folder, headers, {
    dataOf: (name) => tensorPieces(weights, name),
    metadata: { format: "pt" },
    maxShardBytes: maxShardBytes ?? defaultShardBytes,
  });
}

/** Writes a `.nemo`. Throws FileError, ConfigError. */
export function writeArchive(
  source: ConversionSource,
  weights: TensorSource,
  { path, labels }: { path: string; labels: Labels },
): void {
  const { json, checkpoint } = source;
  const { tokenizerFiles } = checkpoint;
  const sentencePiece = sentencePieceName([...tokenizerFiles.keys()]);
  const others = new Map<string, Uint8Array>([["README.md", Buffer.from(cardText(source, labels))]]);
  const nested: string[] = [];
  for (const [name, read] of [...tokenizerFiles, ...checkpoint.otherFiles]) {
    if (name.includes("/")) nested.push(name);
    else if (name !== sentencePiece && !others.has(name)) others.set(name, read());
  }
  if (nested.length > 0) note(`${nested.join(", ")}: a .nemo has no place for folders; left out`);
  writeNemo(path, {
    config: megatronConfig(json),
    weights,
    tokenizer: sentencePiece === undefined ? undefined : tokenizerFiles.get(sentencePiece)?.(),
    otherFiles: others,
  });
}

/** The one model that NeMo's description can name. */
function sentencePieceName(names: readonly string[]): string | undefined {
  const models = names.filter((name) => name.endsWith(".model"));
  return models.length === 1 ? models[0] : models.find((name) => name === "tokenizer.model");
}
