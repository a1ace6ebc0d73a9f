/**
 * Weights out of a checkpoint of any format into a decoder's arenas. Tensors are read a piece at a time, straight to their place, so
 * that beside the model itself a few megabytes are held; other float formats are converted on the device, piece by piece. A matrix to be
 * quantised is held whole in the model's dtype, one at a time.
 */
import { decodeValues, dtypeBytes, encodeValues, invariant } from "../../base/index.ts";
import { storedDtypeBytes, tensorPieces, transposeBytes } from "../../checkpoint/index.ts";
import type { TensorSource } from "../../checkpoint/index.ts";
import type { Context, Tensor } from "../../tensor/index.ts";
import type { Decoder } from "./decoder.ts";
import type { ModelFamily, WeightSlice } from "./family.ts";
import type { MappedWeights } from "./mapping.ts";
import { isFloat, matchTensors } from "./match.ts";

/** Elements converted at a time: long enough for a GPU, short enough for the cache of a core. */
const pieceElements = 1 << 20;

/**
 * Fills the decoder's weights but for those it was made with, `mapped` from the same source. The whole checkpoint is checked before anything
 * is read: tensors that are missing, that no family has, or of another shape are one error. Throws CheckpointError naming file and tensor,
 * ConfigError for a decoder with mapped weights that are not given.
 */
export function readWeights(
  context: Context,
  {
    family,
    decoder,
    source,
    mapped,
  }: { family: ModelFamily; decoder: Decoder; source: TensorSource; mapped?: MappedWeights | undefined },
): void {
  if (mapped === undefined) decoder.expectWritable();
  const quantised = new Map<string, [string, WeightSlice][]>();
  const all = matchTensors(family, decoder.config, source);
  const slices = new Map([...all].filter(([, { parameter }]) => mapped?.has(parameter) !== true));
  const isFilled = fillFromFiles(context, { slices, decoder, source });
  for (const [stored, slice] of slices) {
    if (isFilled.has(stored)) continue;
    if (decoder.quantised.has(slice.parameter)) {
      quantised.set(slice.parameter, [...(quantised.get(slice.parameter) ?? []), [stored, slice]]);
    } else fillSlice(context, decoder.parameters.get(slice.parameter), { source, stored, slice });
  }
  for (const [parameter, slices] of quantised) {
    const weight = decoder.quantised.get(parameter);
    invariant(weight !== undefined, `quantised parameter ${parameter}`);
    context.scope(() => {
      const dense = context.empty(weight.shape, decoder.dtype);
      for (const [stored, slice] of slices) fillSlice(context, dense, { source, stored, slice });
      weight.assign(context, dense);
    });
  }
}

/**
 * Fills the weights whose bytes lie in a file as the device needs them, all at once where the device can. Gives the names of those that
 * are filled; the others are left to the way that says what is wrong with them.
 */
function fillFromFiles(
  context: Context,
  {
    slices,
    decoder,
    source,
  }: { slices: ReadonlyMap<string, WeightSlice>; decoder: Decoder; source: TensorSource },
): Set<string> {
  const { device } = context;
  if (device.uploadFiles === undefined) return new Set();
  const transfers = [...slices].flatMap(([stored, slice]) => {
    if (decoder.quantised.has(slice.parameter) || slice.isTransposed === true) return [];
    const whole = decoder.parameters.get(slice.parameter);
    const range = source.info(stored).dtype === whole.dtype ? source.fileRange?.(stored) : undefined;
    if (range === undefined) return [];
    using rows = whole.rows(slice.rowStart, slice.rowStart + slice.numRows);
    return [{ ...range, target: rows.buffer, byteOffset: rows.byteOffset, stored }];
  });
  const left = new Set(device.uploadFiles(transfers));
  return new Set(transfers.filter((transfer) => !left.has(transfer)).map(({ stored }) => stored));
}

/** Fills the rows of `whole` that a slice names. */
function fillSlice(
  context: Context,
  whole: Tensor,
  { source, stored, slice }: { source: TensorSource; stored: string; slice: WeightSlice },
): void {
  using tensor = whole.rows(slice.rowStart, slice.rowStart + slice.numRows);
  if (slice.isTransposed === true) fillTransposed(tensor, source, stored);
  else fill(context, tensor, { source, name: stored });
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
