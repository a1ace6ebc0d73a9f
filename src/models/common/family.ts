/** What a model family tells the rest of Nautilus: how its files spell its configuration and name its weights. */
import type { DecoderConfig } from "./config.ts";

/** A run of rows of one of our parameters, as one tensor of a checkpoint. */
export interface WeightSlice {
  /** Name in the checkpoint. */
  name: string;
  /** Our parameter. */
  parameter: string;
  /** First row, and rows, of the parameter that the tensor fills. */
  rowStart: number;
  numRows: number;
  /** The tensor holds the transpose of the rows. */
  isTransposed?: boolean;
}

export interface ModelFamily {
  readonly name: string;
  /** `architectures[0]` and `model_type` of config.json. */
  readonly architecture: string;
  readonly modelType: string;
  /** What stands before the names of all tensors but the head's; checkpoints of a model without head leave it out. */
  readonly basePrefix: string;
  /** Tensors of older checkpoints that are no weights. */
  readonly ignoredTensors: RegExp;
  /** Named sizes, and other names of some of them. */
  readonly presets: Readonly<Record<string, () => DecoderConfig>>;
  readonly presetAliases: Readonly<Record<string, string>>;
  /** Reads a parsed config.json, keys of all ages. Throws ConfigError; an unsupported feature is refused by name. */
  readConfig(json: unknown): DecoderConfig;
  /** Throws ConfigError for shapes that the decoder computes and the family's files cannot say. */
  checkShape?(config: DecoderConfig): void;
  /** The config.json of a model. */
  writeConfig(config: DecoderConfig, dtype: string): Record<string, unknown>;
  /** Every tensor of a checkpoint and where it goes. */
  weightSlices(config: DecoderConfig): WeightSlice[];
}
