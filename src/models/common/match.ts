/**
 * A checkpoint held against what its configuration says: every tensor there, none besides, each of the right shape. Both loading and
 * converting begin with it, before a byte of weights is read.
 */
import { CheckpointError, formatShape, invariant } from "../../base/index.ts";
import type { FloatDtype } from "../../base/index.ts";
import type { StoredDtype, TensorSource } from "../../checkpoint/index.ts";
import type { DecoderConfig } from "./config.ts";
import type { ModelFamily, WeightSlice } from "./family.ts";
import { parameterSpecs } from "./specs.ts";

const component = "model";

/**
 * Every tensor's name in the source, and where it goes. Tensors that are missing, that the family does not have, of another shape, or of no
 * float are errors. Throws CheckpointError naming file and tensor.
 */
export function matchTensors(
  family: ModelFamily,
  config: DecoderConfig,
  source: TensorSource,
): Map<string, WeightSlice> {
  const slices = family.weightSlices(config);
  const shapes = new Map(parameterSpecs(config).map(({ name, shape }) => [name, shape]));
  const found = new Map<string, WeightSlice>();
  const missing: string[] = [];
  for (const slice of slices) {
    const stored = storedName(family, source, slice.name);
    if (stored === undefined) missing.push(slice.name);
    else {
      checkTensor(sliceShape(slice, shapes), { source, stored });
      found.set(stored, slice);
    }
  }
  const others = [...source.names()].filter((name) => !found.has(name) && !isNoWeight(family, config, name));
  if (missing.length > 0) {
    const more = missing.length > 1 ? ` and ${missing.length - 1} more` : "";
    throw new CheckpointError(
      component,
      `expected the tensor ${missing[0]}${more} in ${source.path}, got ${others.length === 0 ? "none" : `${others[0]}, which a ${family.name} model does not have`}`,
      { hint: "is it a whole checkpoint of this model?", fields: { missing, others } },
    );
  }
  if (others.length > 0) {
    throw new CheckpointError(
      component,
      `expected only tensors of a ${family.name} model as config.json describes it in ${source.path}, got ${others[0]}${others.length > 1 ? ` and ${others.length - 1} more` : ""}`,
      { hint: "leaving them out would change what the model computes", fields: { others } },
    );
  }
  return found;
}

/** Models without a head are stored without the prefix. */
function storedName({ basePrefix }: ModelFamily, source: TensorSource, name: string): string | undefined {
  if (source.has(name)) return name;
  const short = name.startsWith(basePrefix) ? name.slice(basePrefix.length) : undefined;
  return short !== undefined && source.has(short) ? short : undefined;
}

function isNoWeight({ ignoredTensors }: ModelFamily, config: DecoderConfig, name: string): boolean {
  return ignoredTensors.test(name) || (config.tiesEmbeddings && name === "lm_head.weight");
}

/** The shape of a slice's tensor in the checkpoint. */
function sliceShape(
  { parameter, numRows, isTransposed = false }: WeightSlice,
  shapes: ReadonlyMap<string, readonly number[]>,
): number[] {
  const whole = shapes.get(parameter);
  invariant(whole !== undefined, `parameter ${parameter} exists`);
  const shape = [numRows, ...whole.slice(1)];
  return isTransposed ? shape.toReversed() : shape;
}

function checkTensor(
  expected: readonly number[],
  { source, stored }: { source: TensorSource; stored: string },
): void {
  const { shape, dtype } = source.info(stored);
  const fields = { name: stored, path: source.path };
  if (shape.join() !== expected.join()) {
    throw new CheckpointError(
      component,
      `expected ${stored} of shape ${formatShape(expected)} in ${source.path}, got ${formatShape(shape)}`,
      { hint: "the weights are of another model than config.json says", fields },
    );
  }
  if (!isFloat(dtype)) {
    throw new CheckpointError(
      component,
      `expected ${stored} in f32, bf16, f16 or f64 in ${source.path}, got ${dtype}`,
      { hint: "load the checkpoint that it was quantised from", fields },
    );
  }
}

/** Whether weights can be made of it. */
export function isFloat(dtype: StoredDtype): dtype is FloatDtype {
  return dtype === "f32" || dtype === "bf16" || dtype === "f16" || dtype === "f64";
}
