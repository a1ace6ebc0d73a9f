/** What is known of a stored adapter, whatever file it lies in. */
import type { TensorSource } from "../../../checkpoint/index.ts";
import type { AdapterConfig } from "../config.ts";

/** What a folder says of its adapter before a model is there. */
export interface AdapterFolder {
  config: AdapterConfig;
  /** base_model_name_or_path */
  baseModel: string | undefined;
  /** Tensors under PEFT's names or ours; the caller disposes them. */
  openWeights: () => TensorSource;
}
