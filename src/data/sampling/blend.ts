/**
 * Weighted blends of data sets in Megatron's way: at every step the member furthest behind its share gives its next
 * sample. Members are built a little longer than their share, because the greedy rule may run ahead of it.
 * Source: Megatron-LM's blended_megatron_dataset_builder.py, blended_dataset.py and helpers.cpp.
 */
import { createHash } from "node:crypto";
import { ConfigError, DataError, invariant } from "../../base/index.ts";
import { normalizeWeights, numpySum } from "./numpySum.ts";
import type { TokenDataset } from "./tokenDataset.ts";

const surplus = 0.005;
const mostMembers = 32_766;

export interface BlendIndex {
  /** The member of each sample. */
  datasetIndex: Int16Array;
  /** The sample's number in its member. */
  datasetSampleIndex: Uint32Array;
}

/** Samples planned of each member, and built of it (0.5 % more), for `numSamples` in the shares of `weights`. */
export function blendSizes(
  weights: readonly number[],
  numSamples: number,
): { planned: number[]; built: number[] } {
  const planned = normalizeWeights(weights).map((weight) => Math.ceil(numSamples * weight));
  return { planned, built: planned.map((size) => Math.ceil(size * (1 + surplus))) };
}

/** `size` turns of the greedy rule: step i goes to the first member with the largest weight * max(i, 1) - samples so far. */
export function buildBlendIndex(weights: readonly number[], size: number): BlendIndex {
  const index = makeIndex(size);
  const counts = new Float64Array(weights.length);
  for (let sample = 0; sample < size; sample++) {
    const turn = Math.max(sample, 1);
    let best = 0;
    let mostBehind = weights[0] * turn - counts[0];
    for (let member = 1; member < weights.length; member++) {
      const behind = weights[member] * turn - counts[member];
      if (behind > mostBehind) {
        mostBehind = behind;
        best = member;
      }
    }
    index.datasetIndex[sample] = best;
    index.datasetSampleIndex[sample] = counts[best]++;
  }
  return index;
}

/** All samples of all members once, by the same rule among those that have samples left. */
export function buildExhaustiveBlendIndex(sizes: readonly number[]): BlendIndex {
  const total = sizes.reduce((sum, size) => sum + size, 0);
  const index = makeIndex(total);
  const counts = new Float64Array(sizes.length);
  for (let sample = 0; sample < total; sample++) {
    const turn = Math.max(sample, 1);
    let best = -1;
    let mostBehind = -Infinity;
    for (let member = 0; member < sizes.length; member++) {
      if (counts[member] === sizes[member]) continue;
      const behind = (sizes[member] / total) * turn - counts[member];
      if (behind > mostBehind) {
        mostBehind = behind;
        best = member;
      }
    }
    index.datasetIndex[sample] = best;
    index.datasetSampleIndex[sample] = counts[best]++;
  }
  return index;
}

function makeIndex(size: number): BlendIndex {
  return { datasetIndex: new Int16Array(size), datasetSampleIndex: new Uint32Array(size) };
}

/** Throws a ConfigError for weights that no blend can have. */
export function checkWeights(weights: readonly number[]): void {
  if (weights.length > mostMembers) {
    throw new ConfigError(
      "data",
      `expected at most ${mostMembers} members in a blend, got ${weights.length}`,
    );
  }
  const wrong = weights.find((weight) => !Number.isFinite(weight) || weight < 0);
  if (wrong !== undefined || !(numpySum(weights) > 0)) {
    throw new ConfigError(
      "data",
      `expected blend weights of 0 or more and one above 0, got ${weights.join(", ")}`,
    );
  }
}

export class BlendedDataset implements TokenDataset {
  readonly members: readonly TokenDataset[];
  readonly sequenceLength: number;
  readonly index: BlendIndex;
  readonly fingerprint: string;

  constructor(members: readonly TokenDataset[], index: BlendIndex) {
    invariant(members.length > 0, "a blend has no members");
    const { sequenceLength } = members[0];
    invariant(
      members.every((member) => member.sequenceLength === sequenceLength),
      "members of a blend differ in sequence length",
    );
    this.members = members;
    this.sequenceLength = sequenceLength;
    this.index = index;
    const hash = createHash("sha256");
    for (const member of members) hash.update(member.fingerprint);
    hash.update(index.datasetIndex);
    this.fingerprint = hash.digest("hex");
  }

  get numSamples(): number {
    return this.index.datasetIndex.length;
  }

  readSample(index: number, out: Int32Array, at = 0): void {
    invariant(index >= 0 && index < this.numSamples, `sample ${index} of ${this.numSamples} was read`);
    const member = this.members[this.index.datasetIndex[index]];
    const sample = this.index.datasetSampleIndex[index];
    if (sample >= member.numSamples) {
      throw new DataError(
        "data",
        `expected member ${this.index.datasetIndex[index]} of the blend to have more than ${sample} samples, got ${member.numSamples}`,
        {
          hint: "the greedy rule drew more than the 0.5 % surplus: ask for more samples or even out the weights",
        },
      );
    }
    member.readSample(sample, out, at);
  }
}
