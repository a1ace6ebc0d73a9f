/** The form of a row of the operator table. */

export type TensorAccess = "read" | "write" | "update" | "read?" | "write?" | "update?";

export interface OpSpec {
  /** The definition, with shapes. */
  readonly summary: string;
  readonly tensors: Readonly<Record<string, TensorAccess>>;
  /** Whole-number arguments, each below 2^53. */
  readonly integers: readonly string[];
  readonly floats: readonly string[];
}
