/**
 * From raw text to batches: sources, preparation to Megatron's token files, splits and blends, loaders.
 */
export type { DocumentEncoder, EncoderModule, EncoderSpec, TokenizerFile } from "./encoder.ts";
export {
  ignoredTarget,
  type LoaderState,
  type TokenBatch,
  TokenLoader,
  type TokenLoaderOptions,
} from "./loader.ts";
export { dtypeForVocabulary, type TokenDtype, type WrittenDtype } from "./megatron/format.ts";
export { MegatronReader, type ReaderOptions } from "./megatron/reader.ts";
export {
  type DataStatistics,
  expectTokenizer,
  readDocumentBytes,
  readStatistics,
} from "./megatron/statistics.ts";
export { MegatronWriter, type WriterStatistics } from "./megatron/writer.ts";
export { tokenizerSha256 } from "./prepare/loadEncoder.ts";
export {
  type PreparedDataset,
  type PreparedDatasets,
  prepareDataset,
  type PrepareOptions,
  type PrepareProgress,
} from "./prepare/prepare.ts";
export { BlendedDataset, blendSizes, buildBlendIndex, buildExhaustiveBlendIndex } from "./sampling/blend.ts";
export {
  type BlendMember,
  type DatasetOptions,
  openBlend,
  type OpenDataset,
  openInOrder,
  openSplits,
  type SplitOptions,
} from "./sampling/build.ts";
export { defaultSeed, GptDataset, type GptDatasetOptions } from "./sampling/gptDataset.ts";
export { buildGptIndex, type GptIndex, type GptIndexOptions } from "./sampling/gptIndex.ts";
export { NumpyRandomState } from "./sampling/numpyRandom.ts";
export {
  type DocumentRange,
  parseSplit,
  splitDocuments,
  type SplitName,
  splitNames,
} from "./sampling/split.ts";
export { paddingId, type TokenDataset } from "./sampling/tokenDataset.ts";
export { listFiles, type SourceFile } from "./sources/files.ts";
export { readDocuments } from "./sources/read.ts";
export { type ResolvedSource, type Source, sourceSchema } from "./sources/schema.ts";
export type { SourceDocument } from "./sources/unit.ts";
export { layOut, type LayoutOptions, type RowRange, type TextBatch } from "./tuning/batch.ts";
export {
  readTuningData,
  showText,
  splitTuningData,
  textsOf,
  type TuningData,
  type TuningExample,
  type TuningStatistics,
} from "./tuning/dataset.ts";
export { type EncodedText, encodeText, type EncodeTextOptions } from "./tuning/encode.ts";
export { packFirstFit, shuffled } from "./tuning/packing.ts";
export { readTuningRecords, type TuningRecord, type TuningText } from "./tuning/records.ts";
