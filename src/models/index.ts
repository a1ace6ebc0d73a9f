/** Models: the shared decoder, and one folder per family. Knows no device by name, no training and no serving. */
export * from "./adapters/index.ts";
export { checkDecoderConfig } from "./common/config.ts";
export type { DecoderConfig } from "./common/config.ts";
export { configText } from "./common/configText.ts";
export { Decoder } from "./common/decoder.ts";
export type { SequenceBatch } from "./common/decoder.ts";
export type { DecoderOptions } from "./common/decoderWeights.ts";
export { Projection, projectionSites } from "./common/projection.ts";
export type {
  DecoderAdapter,
  EmbeddingAdapter,
  ProjectionAdapter,
  ProjectionPlace,
  ProjectionSite,
  ProjectionWeights,
  RowChoices,
  Sublayer,
  SublayerAdapter,
} from "./common/projection.ts";
export type { ModelFamily, WeightSlice } from "./common/family.ts";
export { countMatmulParameters, countParameters, parameterSpecs, weightBytes } from "./common/specs.ts";
export { gpt2 } from "./gpt2/index.ts";
export { llama, mistral, qwen2 } from "./llama/index.ts";
export { nemotron, nemotronPreset, nemotronPresetNames } from "./nemotron/index.ts";
export {
  adapterMemory,
  cacheBytesPerToken,
  cacheFormats,
  operationsPerToken,
  servingMemory,
  trainingMemory,
} from "./common/memory.ts";
export type {
  AdaptedProjection,
  AdapterMemoryOptions,
  CacheFormat,
  OperationsPerToken,
  TrainingMemory,
  TrainingMemoryOptions,
} from "./common/memory.ts";
export type { MappedWeights } from "./common/mapping.ts";
export type { LoadOptions } from "./registry.ts";
export {
  checkModelConfig,
  checkpointConfig,
  loadCheckpointModel,
  loadModelFolder,
  loadModelWeights,
  loadWeights,
  mapCheckpointWeights,
  modelFamily,
  modelPreset,
  modelPresetNames,
  modelTensors,
  parseModelConfig,
  readModelFolderConfig,
  saveModelFolder,
} from "./registry.ts";
