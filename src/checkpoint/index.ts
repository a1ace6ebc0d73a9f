/** Checkpoint formats: host bytes by name, no tensors. */
export { castView } from "./cast.ts";
export { verifyChecksums, writeChecksums } from "./checksums.ts";
export {
  defaultShardBytes,
  indexFileName,
  openCheckpointFolder,
  singleFileName,
  writeCheckpointFolder,
} from "./folder.ts";
export { ggufModel } from "./gguf/huggingFace.ts";
export type { GgufModel } from "./gguf/huggingFace.ts";
export { openGguf } from "./gguf/reader.ts";
export type { GgufFile, GgufValue } from "./gguf/reader.ts";
export { canonicalMegatron, mergeMegatronRanks } from "./megatron/canonical.ts";
export { huggingFaceConfig, huggingFaceFamily } from "./megatron/config.ts";
export type { MegatronConfig } from "./megatron/config.ts";
export { megatronConfig } from "./megatron/fromHuggingFace.ts";
export { huggingFaceView, megatronView } from "./megatron/huggingFace.ts";
export * from "./hub/index.ts";
export { modelCardBody, parseModelCard, publishedName, repositoryOf, writeModelCard } from "./modelCard.ts";
export type { ModelCard, ModelCardChanges } from "./modelCard.ts";
export { isNemoAdapter, openNemoLora } from "./nemo/lora.ts";
export type { NemoLora } from "./nemo/lora.ts";
export { openNemo } from "./nemo/open.ts";
export type { NemoCheckpoint } from "./nemo/open.ts";
export { writeNemo } from "./nemo/writer.ts";
export type { NemoContents } from "./nemo/writer.ts";
export { isCheckpointFolder, openCheckpoint } from "./open.ts";
export type { CheckpointKind, ModelCheckpoint } from "./open.ts";
export { openSafetensors, writeSafetensors } from "./safetensors.ts";
export type { TensorHeader, WriteOptions } from "./safetensors.ts";
export { storedDtypeBytes, tensorPieces } from "./source.ts";
export type { StoredDtype, StoredTensorInfo, TensorSource } from "./source.ts";
export { openTorchFile } from "./torch/torchFile.ts";
export type { TorchFile } from "./torch/torchFile.ts";
export { makeTemporaryFolder } from "./temporary.ts";
export type { TemporaryFolder } from "./temporary.ts";
export { transposeBytes } from "./transpose.ts";
export { observedView, renamedView } from "./views.ts";
