/**
 * Writes a `.nemo` of NeMo 1: an uncompressed tar with `model_config.yaml`, the tokenizer, and the weights as a zarr checkpoint of
 * Megatron-core (one chunk per layer and tensor, no tensor parallelism). Streams: never more than one piece of a tensor is held.
 */
import { createHash } from "node:crypto";
import { writeFileAtomically } from "../../base/index.ts";
import type { MegatronConfig } from "../megatron/config.ts";
import { megatronView } from "../megatron/huggingFace.ts";
import { embeddingName, parseMegatronName } from "../megatron/names.ts";
import { tensorPieces } from "../source.ts";
import type { TensorSource } from "../source.ts";
import { writeTar, tarMember } from "../tarWriter.ts";
import type { TarMember } from "../tarWriter.ts";
import { emptyTorchFile } from "../torch/emptyFile.ts";
import { zarrayName, zarrayText } from "../zarr.ts";
import { nemo1ConfigText } from "./configText.ts";

export interface NemoContents {
  readonly config: MegatronConfig;
  /** Tensors under Hugging Face's names; left open. */
  readonly weights: TensorSource;
  /** The SentencePiece model. */
  readonly tokenizer?: Uint8Array | undefined;
  /** Further files of the tokenizer by name, which NeMo passes over and Nautilus reads back. */
  readonly otherFiles?: ReadonlyMap<string, Uint8Array>;
}

const weightsFolder = "model_weights";
const precisions: Readonly<Record<string, string>> = { bf16: "bf16", f16: "16", f32: "32" };

/** Writes the archive atomically. Throws CheckpointError, ConfigError, FileError; nothing is left behind then. */
export function writeNemo(
  path: string,
  { config, weights, tokenizer, otherFiles = new Map() }: NemoContents,
): void {
  const megatron = megatronView(weights, config);
  const { dtype } = megatron.info(`model.${embeddingName}`);
  const tokenizerFile = tokenizer && artefactName("tokenizer.model", tokenizer);
  const others = [...otherFiles].map(([name, content]) => [artefactName(name, content), content] as const);
  const backends = {
    sharded_backend: "zarr",
    sharded_backend_version: 1,
    common_backend: "torch",
    common_backend_version: 1,
  };
  const yaml = nemo1ConfigText(config, {
    precision: precisions[dtype] ?? "32",
    tokenizerFile,
    otherFiles: others.map(([name]) => name),
  });
  writeFileAtomically("nemo", path, (descriptor) =>
    writeTar(descriptor, [
      tarMember("./model_config.yaml", yaml),
      ...(tokenizer === undefined || tokenizerFile === undefined
        ? []
        : [tarMember(`./${tokenizerFile}`, tokenizer)]),
      ...others.map(([name, content]) => tarMember(`./${name}`, content)),
      tarMember(`./${weightsFolder}/metadata.json`, JSON.stringify(backends)),
      tarMember(`./${weightsFolder}/common.pt`, emptyTorchFile()),
      ...[...megatron.names()].flatMap((name) => arrayMembers(megatron, name)),
    ]),
  );
}

/** NeMo prefixes artefacts with 32 hexadecimal digits to keep them apart; a sum of the content is stable. */
function artefactName(name: string, content: Uint8Array): string {
  return `${createHash("sha256").update(content).digest("hex").slice(0, 32)}_${name}`;
}

/** The files of one array: its description, and a chunk per layer of a stacked tensor, else one. */
function arrayMembers(source: TensorSource, name: string): TarMember[] {
  const { dtype, shape, byteLength } = source.info(name);
  const place = parseMegatronName(name);
  const isStacked = typeof place === "object" && place.layer === "stacked";
  const numChunks = isStacked ? shape[0] : 1;
  const chunkBytes = byteLength / numChunks;
  const rest = shape.slice(1).map(() => "0");
  const folder = `./${weightsFolder}/${name}`;
  return [
    tarMember(
      `${folder}/${zarrayName}`,
      zarrayText({ dtype, shape, chunks: isStacked ? [1, ...shape.slice(1)] : shape }),
    ),
    ...Array.from({ length: numChunks }, (_, chunk): TarMember => ({
      name: `${folder}/${[chunk, ...rest].join(".")}`,
      byteLength: chunkBytes,
      pieces: () => tensorPieces(source, name, { start: chunk * chunkBytes, byteLength: chunkBytes }),
    })),
  ];
}
