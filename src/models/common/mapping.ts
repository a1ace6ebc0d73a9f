/**
 * Weights for inference that need no memory of their own: matrices whose bytes lie in a file as the device computes with them are shown
 * from there (`Device.mapFile`), so that a model is there at once, and processes share its pages. What differs in dtype, is transposed, or
 * is put together by its format is read as ever; so are vectors, which are small, and what a system refuses to map.
 *
 * A file that is cut short while it is mapped ends the process (SIGBUS) when its pages are missed, as with every loader that maps. One that
 * is replaced by renaming, as downloads and `writeSafetensors` do, stays what it was for those who have it open.
 */
import { ConfigError, dtypeBytes, formatShape } from "../../base/index.ts";
import type { FileRange, FloatDtype } from "../../base/index.ts";
import type { TensorSource } from "../../checkpoint/index.ts";
import { Storage, Tensor } from "../../tensor/index.ts";
import type { Context, ParameterSpec, QuantisedFormat } from "../../tensor/index.ts";
import type { DecoderConfig } from "./config.ts";
import type { ModelFamily, WeightSlice } from "./family.ts";
import { matchTensors } from "./match.ts";
import { isBlockMatrix, splitSpecs } from "./specs.ts";

/** Rows of parameters in files. A decoder that is made with them takes handles of its own; these are their opener's to dispose. */
export class MappedWeights implements Disposable {
  readonly #rows: ReadonlyMap<string, readonly Tensor[]>;

  constructor(rows: ReadonlyMap<string, readonly Tensor[]>) {
    this.#rows = rows;
  }

  get byteLength(): number {
    return this.#tensors().reduce((total, { byteLength }) => total + byteLength, 0);
  }

  has(parameter: string): boolean {
    return this.#rows.has(parameter);
  }

  /** Parameters that lie in one piece, (F, C). */
  get whole(): ReadonlyMap<string, Tensor> {
    return new Map(
      [...this.#rows].flatMap(([name, parts]) => (parts.length === 1 ? [[name, parts[0]]] : [])),
    );
  }

  /** Matrices of blocks whose rows lie in several places, (F_i, C) each, in order. */
  get stacked(): ReadonlyMap<string, readonly Tensor[]> {
    return new Map([...this.#rows].filter(([, parts]) => parts.length > 1));
  }

  /** Throws ConfigError unless all are among a model's parameters in floats: what is quantised, or in another dtype, is not what they show. */
  expectAmong(specs: readonly ParameterSpec[], dtype: FloatDtype): void {
    const shapes = new Map(specs.map(({ name, shape }) => [name, shape]));
    for (const [name, parts] of this.#rows) {
      const shown = [parts.reduce((total, { numRows }) => total + numRows, 0), parts[0].width];
      const [shape, wantedShape] = [shown, shapes.get(name) ?? []].map((each) => formatShape(each));
      if (shape === wantedShape && parts[0].dtype === dtype) continue;
      const wanted = shapes.has(name) ? `${name} ${wantedShape} in ${dtype}` : `no ${name} in floats`;
      throw new ConfigError(
        "model",
        `expected of mapped weights ${wanted}, got ${shape} in ${parts[0].dtype}`,
        {
          hint: "map them of the checkpoint, and with the dtype and the quantisation, that the model is made with",
          fields: { parameter: name },
        },
      );
    }
  }

  /** Has them read before they are asked for, where there is memory for them all: else they would push each other out. */
  fetchAhead({ device }: Context): void {
    const { freeBytes = 0 } = device.memory();
    if (this.byteLength <= freeBytes) device.fetchMapped?.(this.#tensors());
  }

  #tensors(): Tensor[] {
    return [...this.#rows.values()].flat();
  }

  dispose(): void {
    for (const part of this.#tensors()) part.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

export interface MappingOptions {
  family: ModelFamily;
  config: DecoderConfig;
  source: TensorSource;
  dtype: FloatDtype;
  quantise?: QuantisedFormat | undefined;
}

/** Maps what can be; the whole checkpoint is checked first. The source may be closed afterwards. Throws CheckpointError. */
export function mapWeights(context: Context, options: MappingOptions): MappedWeights {
  const { family, config, source, dtype, quantise } = options;
  if (context.device.mapFile === undefined) return new MappedWeights(new Map());
  const slices = Map.groupBy(matchTensors(family, config, source), ([, { parameter }]) => parameter);
  const wanted = splitSpecs(config, quantise).dense.flatMap((spec) => {
    const runs = runsOf(spec, { slices: slices.get(spec.name) ?? [], source, dtype });
    return runs === undefined ? [] : [{ spec, runs }];
  });
  using files = mapFiles(
    context,
    wanted.flatMap(({ runs }) => runs),
  );
  const rows = new Map<string, readonly Tensor[]>();
  for (const { spec, runs } of wanted) {
    const places = runs.flatMap((run) => files.find(run) ?? []);
    if (places.length < runs.length) continue;
    const width = spec.shape[1];
    const parts = places.map(({ storage, byteOffset, byteLength }) => {
      const shape = [byteLength / (width * dtypeBytes(dtype)), width];
      return new Tensor(storage.retain(), { shape, dtype, byteOffset });
    });
    rows.set(spec.name, parts);
    for (const run of runs) run.onRead?.(run.byteLength);
  }
  return new MappedWeights(rows);
}

/** A parameter's ranges in files, joined where one begins as the other ends. Undefined where not all of it can be shown. */
function runsOf(
  spec: ParameterSpec,
  {
    slices,
    source,
    dtype,
  }: { slices: readonly (readonly [string, WeightSlice])[]; source: TensorSource; dtype: FloatDtype },
): FileRange[] | undefined {
  if (spec.shape.length !== 2) return undefined;
  const runs: FileRange[] = [];
  for (const [stored, { isTransposed }] of slices.toSorted(([, a], [, b]) => a.rowStart - b.rowStart)) {
    const range =
      isTransposed === true || source.info(stored).dtype !== dtype ? undefined : source.fileRange?.(stored);
    if (range === undefined || range.position % dtypeBytes(dtype) !== 0) return undefined;
    const last = runs.at(-1);
    if (last?.descriptor === range.descriptor && last.position + last.byteLength === range.position)
      runs[runs.length - 1] = joined(last, range);
    else runs.push(range);
  }
  return runs.length === 1 || isBlockMatrix(spec) ? runs : undefined;
}

function joined(first: FileRange, second: FileRange): FileRange {
  const onRead = (): void => {
    first.onRead?.(first.byteLength);
    second.onRead?.(second.byteLength);
  };
  return { ...first, byteLength: first.byteLength + second.byteLength, onRead };
}

interface MappedPlace {
  storage: Storage;
  byteOffset: number;
  byteLength: number;
}

interface MappedFiles extends Disposable {
  /** Where a range is shown; undefined where its file could not be mapped. */
  find(range: FileRange): MappedPlace | undefined;
}

/**
 * One mapping of each file, from the first to the last byte that is wanted: huge pages begin where the file's do, which the edges of each
 * tensor would cut into. The mapping ends with the last tensor in it.
 */
function mapFiles({ device }: Context, ranges: readonly FileRange[]): MappedFiles {
  const files = new Map<number, { start: number; storage: Storage }>();
  for (const [descriptor, own] of Map.groupBy(ranges, (range) => range.descriptor)) {
    const start = Math.min(...own.map(({ position }) => position));
    const end = Math.max(...own.map(({ position, byteLength }) => position + byteLength));
    const buffer = device.mapFile?.({ descriptor, position: start, byteLength: end - start });
    if (buffer !== undefined) files.set(descriptor, { start, storage: new Storage(buffer) });
  }
  return {
    find({ descriptor, position, byteLength }) {
      const file = files.get(descriptor);
      return file && { storage: file.storage, byteOffset: position - file.start, byteLength };
    },
    [Symbol.dispose]() {
      for (const { storage } of files.values()) storage.release();
    },
  };
}
