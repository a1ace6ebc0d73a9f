/** Checkpoint formats: host bytes by name, no tensors. */
export { verifyChecksums, writeChecksums } from "./checksums.ts";
export {
  defaultShardBytes,
  indexFileName,
  openCheckpointFolder,
  singleFileName,
  writeCheckpointFolder,
} from "./folder.ts";
export { openSafetensors, writeSafetensors } from "./safetensors.ts";
export type { TensorHeader, WriteOptions } from "./safetensors.ts";
export { storedDtypeBytes, tensorPieces } from "./source.ts";
export type { StoredDtype, StoredTensorInfo, TensorSource } from "./source.ts";
