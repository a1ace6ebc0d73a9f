/**
 * Weights out of a checkpoint of any format into a decoder's arenas. Tensors are read a piece at a time, straight to their place, so
 * that beside the model itself a few megabytes are held; other float formats are converted on the device, piece by piece.
 */
import { CheckpointError, decodeValues, dtypeBytes, encodeValues, formatShape } from "../../base/index.ts";
import type { FloatDtype } from "../../base/index.ts";
import { storedDtypeBytes, tensorPieces } from "../../checkpoint/index.ts";
import type { StoredDtype, TensorSource } from "../../checkpoint/index.ts";
import type { Context, Tensor } from "../../tensor/index.ts";
import type { Decoder } from "./decoder.ts";
import type { ModelFamily, WeightSlice } from "./family.ts";
import { transposeBytes } from "./transpose.ts";

const component = "model";
/** Elements converted at a time: long enough for a GPU, short enough for the cache of a core. */
const pieceElements = 1 << 20;

/**
 * Fills the decoder's weights. The whole checkpoint is checked before anything is read: tensors that are missing, that no family has, or of
 * another shape are one error. Throws CheckpointError naming file and tensor.
 */
export function readWeights(
  context: Context,
  { family, decoder, source }: { family: ModelFamily; decoder: Decoder; source: TensorSource },
): void {
  for (const [stored, slice] of matchTensors(family, decoder, source)) {
    const tensor = decoder.parameters
      .get(slice.parameter)
      .rows(slice.rowStart, slice.rowStart + slice.numRows);
    try {
      if (slice.isTransposed === true) fillTransposed(tensor, source, stored);
      else fill(context, tensor, { source, name: stored });
    } finally {
      tensor.dispose();
    }
  }
}

/** Every slice with the name its tensor has in the source. */
function matchTensors(family: ModelFamily, decoder: Decoder, source: TensorSource): Map<string, WeightSlice> {
  const slices = family.weightSlices(decoder.config);
  const found = new Map<string, WeightSlice>();
  const missing: string[] = [];
  for (const slice of slices) {
    const stored = storedName(family, source, slice.name);
    if (stored === undefined) missing.push(slice.name);
    else {
      checkTensor(decoder, slice, { source, stored });
      found.set(stored, slice);
    }
  }
  const others = [...source.names()].filter((name) => !found.has(name) && !isNoWeight(family, decoder, name));
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

function isNoWeight({ ignoredTensors }: ModelFamily, { config }: Decoder, name: string): boolean {
  return ignoredTensors.test(name) || (config.tiesEmbeddings && name === "lm_head.weight");
}

function checkTensor(
  decoder: Decoder,
  { parameter, numRows, isTransposed = false }: WeightSlice,
  { source, stored }: { source: TensorSource; stored: string },
): void {
  const { shape, dtype } = source.info(stored);
  const ours = [numRows, ...decoder.parameters.get(parameter).shape.slice(1)];
  const expected = isTransposed ? ours.toReversed() : ours;
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

function isFloat(dtype: StoredDtype): dtype is FloatDtype {
  return dtype === "f32" || dtype === "bf16" || dtype === "f16" || dtype === "f64";
}

function fill(
  context: Context,
  tensor: Tensor,
  { source, name }: { source: TensorSource; name: string },
): void {
  const { dtype } = source.info(name);
  if (!isFloat(dtype)) return;
  const pieceBytes = pieceElements * storedDtypeBytes[dtype];
  const isDirect = dtype === tensor.dtype;
  const converts = !isDirect && context.device.supports("convert", { x: dtype, y: tensor.dtype });
  context.scope(() => {
    const length = Math.min(pieceElements, tensor.numElements);
    const stored = converts ? context.empty([length], dtype) : undefined;
    let element = 0;
    for (const piece of tensorPieces(source, name, { pieceBytes })) {
      const numElements = piece.byteLength / storedDtypeBytes[dtype];
      const place = tensor.at(element);
      if (isDirect) context.device.upload(place.buffer, place.byteOffset, piece);
      else if (stored !== undefined) {
        context.device.upload(stored.buffer, stored.byteOffset, piece);
        context.device.run("convert", { x: stored, y: place, numElements });
      } else {
        const values = encodeValues(tensor.dtype, decodeValues(dtype, piece));
        context.device.upload(place.buffer, place.byteOffset, values);
      }
      element += numElements;
    }
  });
}

/** A transposed tensor is read whole: its rows are columns of the file. */
function fillTransposed(tensor: Tensor, source: TensorSource, name: string): void {
  const { dtype, shape } = source.info(name);
  if (!isFloat(dtype)) return;
  const [numRows, numColumns] = shape;
  const bytes = transposeBytes(source.read(name), { numRows, numColumns, itemBytes: dtypeBytes(dtype) });
  if (dtype === tensor.dtype) tensor.setBytes(bytes);
  else tensor.set(decodeValues(dtype, bytes));
}
