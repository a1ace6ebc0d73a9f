/**
 * Rotary positions (Su et al., 2021) and the ways they are stretched to longer contexts than a model was trained at. Formulas as
 * transformers has them (src/transformers/modeling_rope_utils.py); angles are computed in float64.
 */

/** How the frequencies are changed for longer contexts. */
export type RotaryScaling =
  /** All frequencies divided by `factor` (Chen et al., 2023). */
  | { kind: "linear"; factor: number }
  /** The base grows with sequences longer than maxPositions; up to there, where we stop, nothing changes. */
  | { kind: "dynamic"; factor: number }
  /** Llama 3.1: low frequencies divided by `factor`, high ones kept, a ramp between. */
  | {
      kind: "llama3";
      factor: number;
      lowFrequencyFactor: number;
      highFrequencyFactor: number;
      originalPositions: number;
    }
  /** YaRN (Peng et al., 2023): as llama3 with a ramp over components, and queries and keys scaled by `amplitude`. */
  | {
      kind: "yarn";
      factor: number;
      originalPositions: number;
      /** Turns over the original context: components that turn more often are kept, less often than `betaSlow` divided. */
      betaFast: number;
      betaSlow: number;
      /** Whether the ends of the ramp are whole components. */
      truncates: boolean;
      amplitude: number;
    };

export interface RotaryConfig {
  /** How many components of a head turn. */
  rotaryDim: number;
  /** Of the angles: pair i turns by base^(-2i / rotaryDim) per position. */
  base: number;
  scaling?: RotaryScaling | undefined;
}

/** Angle per position of each rotated pair, (rotaryDim / 2). */
export function rotaryFrequencies({ rotaryDim, base, scaling }: RotaryConfig): Float64Array {
  const plain = Float64Array.from({ length: rotaryDim / 2 }, (_, pair) => base ** ((-2 * pair) / rotaryDim));
  switch (scaling?.kind) {
    case undefined:
    case "dynamic":
      return plain;
    case "linear":
      return plain.map((frequency) => frequency / scaling.factor);
    case "llama3":
      return plain.map((frequency) => llama3Frequency(frequency, scaling));
    case "yarn":
      return yarnFrequencies(plain, { rotaryDim, base, scaling });
  }
}

/** Factor of the cosines and sines. */
export function rotaryAmplitude({ scaling }: RotaryConfig): number {
  return scaling?.kind === "yarn" ? scaling.amplitude : 1;
}

/** The amplitude that YaRN gives a stretch by `factor`. */
export function yarnAmplitude(factor: number, weight = 1): number {
  return factor <= 1 ? 1 : 0.1 * weight * Math.log(factor) + 1;
}

type Scaling<Kind extends RotaryScaling["kind"]> = Extract<RotaryScaling, { kind: Kind }>;

function llama3Frequency(
  frequency: number,
  { factor, lowFrequencyFactor, highFrequencyFactor, originalPositions }: Scaling<"llama3">,
): number {
  const turns = (originalPositions * frequency) / (2 * Math.PI);
  if (turns < lowFrequencyFactor) return frequency / factor;
  if (turns > highFrequencyFactor) return frequency;
  const share = (turns - lowFrequencyFactor) / (highFrequencyFactor - lowFrequencyFactor);
  return (1 - share) * (frequency / factor) + share * frequency;
}

function yarnFrequencies(
  plain: Float64Array,
  { rotaryDim, base, scaling }: { rotaryDim: number; base: number; scaling: Scaling<"yarn"> },
): Float64Array {
  const { factor, originalPositions, betaFast, betaSlow, truncates } = scaling;
  /** The component, as a real number, that turns so often over the original context. */
  const componentOf = (turns: number): number =>
    (rotaryDim * Math.log(originalPositions / (turns * 2 * Math.PI))) / (2 * Math.log(base));
  const [first, last] = [componentOf(betaFast), componentOf(betaSlow)];
  const low = Math.max(truncates ? Math.floor(first) : first, 0);
  const high = Math.min(truncates ? Math.ceil(last) : last, rotaryDim - 1);
  // transformers widens an empty ramp by as much.
  const length = low === high ? 0.001 : high - low;
  return plain.map((frequency, pair) => {
    const ramp = Math.min(1, Math.max(0, (pair - low) / length));
    return (frequency / factor) * ramp + frequency * (1 - ramp);
  });
}
