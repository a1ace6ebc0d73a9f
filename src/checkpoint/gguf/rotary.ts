/**
 * Stretched rotary positions of a GGUF as config.json's rope_scaling: linear and YaRN by their keys, Llama 3.1's as a table of divisors that
 * llama.cpp's converter (convert_hf_to_gguf.py) computes from its parameters, which are found again here.
 */
import { ConfigError, decodeValues } from "../../base/index.ts";
import type { TensorSource } from "../source.ts";
import type { GgufFile } from "./reader.ts";

const component = "gguf";
const tableName = "rope_freqs.weight";
/** Of every model with such a table so far: Llama 3.1, 3.2 and 3.3. */
const [lowFrequencyFactor, highFrequencyFactor, originalPositions] = [1, 4, 8192];

export interface RopeParts {
  family: string;
  metadata: GgufFile["metadata"];
  tensors: TensorSource;
  base: number;
  rotaryDim: number;
}

/** The key `rope_scaling`, or nothing. Throws ConfigError for a kind that is not known. */
export function ggufRopeScaling({
  family,
  metadata,
  tensors,
  base,
  rotaryDim,
}: RopeParts): Record<string, unknown> {
  if (tensors.has(tableName)) return { rope_scaling: fromTable(readTable(tensors), { base, rotaryDim }) };
  const kind = metadata.get(`${family}.rope.scaling.type`) ?? "none";
  const value = (key: string): number | undefined => {
    const found = metadata.get(`${family}.rope.scaling.${key}`);
    return typeof found === "number" ? found : undefined;
  };
  if (kind === "none") return {};
  const factor = value("factor");
  if (kind === "linear" && factor !== undefined) return { rope_scaling: { type: "linear", factor } };
  const original = value("original_context_length");
  if (kind === "yarn" && factor !== undefined && original !== undefined) {
    return { rope_scaling: { rope_type: "yarn", factor, original_max_position_embeddings: original } };
  }
  throw new ConfigError(
    component,
    `${family}.rope.scaling.type: expected none, linear or yarn with their factors, got ${JSON.stringify(kind)}`,
    { hint: "load the Hugging Face folder the file was made from" },
  );
}

function readTable(tensors: TensorSource): Float64Array {
  const { dtype } = tensors.info(tableName);
  if (dtype === "f32") return decodeValues(dtype, tensors.read(tableName));
  throw new ConfigError(component, `${tableName}: expected f32, got ${dtype}`);
}

function fromTable(
  table: Float64Array,
  { base, rotaryDim }: { base: number; rotaryDim: number },
): Record<string, unknown> {
  const factor = Math.max(...table);
  const isLlama3 =
    table.length === rotaryDim / 2 &&
    table.every((divisor, pair) => {
      const expected = llama3Divisor(base ** ((-2 * pair) / rotaryDim), factor);
      return Math.abs(divisor / expected - 1) < 1e-4;
    });
  if (!isLlama3) {
    throw new ConfigError(
      component,
      `${tableName}: expected the divisors of Llama 3.1's rotary positions, got others`,
      {
        hint: "load the Hugging Face folder the file was made from",
      },
    );
  }
  return {
    rope_type: "llama3",
    factor,
    low_freq_factor: lowFrequencyFactor,
    high_freq_factor: highFrequencyFactor,
    original_max_position_embeddings: originalPositions,
  };
}

function llama3Divisor(frequency: number, factor: number): number {
  const turns = (originalPositions * frequency) / (2 * Math.PI);
  if (turns > highFrequencyFactor) return 1;
  if (turns < lowFrequencyFactor) return factor;
  const share = (turns - lowFrequencyFactor) / (highFrequencyFactor - lowFrequencyFactor);
  return 1 / ((1 - share) / factor + share);
}
