/** Checkpoint formats: host bytes by name, no tensors. */
export { verifyChecksums, writeChecksums } from "./checksums.ts";
export { indexFileName, openCheckpointFolder, singleFileName } from "./folder.ts";
export { openSafetensors, writeSafetensors } from "./safetensors.ts";
export type { TensorHeader } from "./safetensors.ts";
export { storedDtypeBytes } from "./source.ts";
export type { StoredDtype, StoredTensorInfo, TensorSource } from "./source.ts";
