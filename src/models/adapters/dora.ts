/**
 * DoRA (Liu et al., "DoRA: Weight-Decomposed Low-Rank Adaptation", 2024): y = m / |W + scale B A| * (x W^T + scale (x A^T) B^T), with a trained
 * magnitude m for each output, which begins as the norm of W's row, and the norm taken as a constant in the backward pass.
 *
 * With dropout, only the low-rank path sees the dropped input. The bias is added behind the scaling.
 */
import {
  dropout,
  matmulInto,
  lowRankLinear,
  ParameterStore,
  scaleColumns,
  StackedWeight,
  Storage,
  Tensor,
} from "../../tensor/index.ts";
import type { Context, LowRankUpdate, ParameterSpec } from "../../tensor/index.ts";
import { ConfigError, dtypeBytes, invariant } from "../../base/index.ts";
import type { Decoder } from "../common/decoder.ts";
import type { ProjectionAdapter, ProjectionPlace, ProjectionWeights } from "../common/projection.ts";
import { Adapter } from "./adapter.ts";
import type { AdapterOptions, AdapterTensor } from "./adapter.ts";
import type { LoraConfig } from "./config.ts";
import {
  initialiseLowRank,
  loraPlaces,
  lowRankA,
  lowRankB,
  lowRankParts,
  lowRankSpecs,
  lowRankTensors,
} from "./lora.ts";
import type { LoraModule, LoraProjectionPlace } from "./lora.ts";
import { placeKey } from "./targets.ts";
import type { TargetModule } from "./targets.ts";

export const magnitudeName = ({ path }: TargetModule): string => `${path}.lora_magnitude_vector`;

/** Factors, and a magnitude per output. */
export function doraSpecs(places: readonly LoraProjectionPlace[]): ParameterSpec[] {
  const magnitudes = places
    .flatMap(({ modules }) => modules)
    .map((module) => ({
      name: magnitudeName(module),
      shape: [module.numOutputs],
      init: { kind: "constant", value: 1 } as const,
      decays: false,
    }));
  return [...lowRankSpecs(places), ...magnitudes];
}

export class DoraAdapter extends Adapter {
  readonly config: LoraConfig;
  readonly parameters: ParameterStore;
  readonly places: readonly LoraProjectionPlace[];
  readonly #decoder: Decoder;
  readonly #byPlace: ReadonlyMap<string, ProjectionAdapter>;
  /** Norms for inference, made at the first use; training changes what they are of. */
  readonly #norms = new Map<string, Tensor>();

  /** Throws ConfigError for a quantised base; OutOfMemoryError. */
  constructor(
    decoder: Decoder,
    {
      config,
      modules,
      ...options
    }: { config: LoraConfig; modules: readonly TargetModule[] } & AdapterOptions,
  ) {
    super();
    expectDoraBase(decoder);
    this.config = config;
    this.#decoder = decoder;
    this.places = loraPlaces(config, modules);
    this.parameters = new ParameterStore(decoder.head.device, doraSpecs(this.places), options);
    this.#byPlace = new Map(
      this.places.map((entry, index) => [
        placeKey(entry.place),
        { apply: (context, x, weights) => this.#apply(context, x, { ...entry, index, weights }) },
      ]),
    );
  }

  #apply(
    context: Context,
    x: Tensor,
    { place, modules, index, weights }: LoraProjectionPlace & { index: number; weights: ProjectionWeights },
  ): Tensor {
    const bits = this.dropoutAt(index, this.places.length);
    const { dropout: probability } = this.config;
    const input = bits === undefined || probability === 0 ? x : dropout(context, x, { probability, ...bits });
    const update: LowRankUpdate = {
      a: this.parameters.get(lowRankA(place)),
      parts: lowRankParts(this.parameters, modules),
      input,
    };
    const { weight, bias } = weights;
    const y = lowRankLinear(context, x, { weight, update });
    const scaled = scaleColumns(
      context,
      y,
      modules.map((module) => ({
        start: module.outputStart,
        scale: this.parameters.get(magnitudeName(module)),
        divisor: this.#norm(context, place, { module, weights }),
      })),
    );
    if (bias !== undefined) addBias(context, scaled, bias);
    return scaled;
  }

  #norm(
    context: Context,
    place: ProjectionPlace,
    { module, weights }: { module: LoraModule; weights: ProjectionWeights },
  ): Tensor {
    if (this.dropoutBits !== undefined || context.tape !== undefined) {
      this.#forgetNorms();
      return this.#rowNorms(context, place, { module, weights });
    }
    const known = this.#norms.get(module.path);
    if (known !== undefined) return known;
    const { dtype } = this.parameters.get(magnitudeName(module));
    const norms = new Tensor(new Storage(context.device.allocate(module.numOutputs * dtypeBytes(dtype))), {
      shape: [module.numOutputs],
      dtype,
    });
    context.scope(() => {
      const fresh = this.#rowNorms(context, place, { module, weights });
      context.device.run("convert", { x: fresh, y: norms, numElements: norms.numElements });
    });
    this.#norms.set(module.path, norms);
    return norms;
  }

  /** |W + scale B A| of each row of the module, (n). */
  #rowNorms(
    context: Context,
    place: ProjectionPlace,
    { module, weights }: { module: LoraModule; weights: ProjectionWeights },
  ): Tensor {
    return context.scope(() => {
      const weight = denseWeight(weights);
      const { numOutputs, numInputs, outputStart, rank, rankStart, scale } = module;
      const changed = context.empty([numOutputs, numInputs], weight.dtype);
      copyRows(context, weight, { begin: outputStart, y: changed });
      matmulInto(
        context,
        {
          a: this.parameters.get(lowRankB(module)),
          b: this.parameters.get(lowRankA(place)).at(rankStart * numInputs),
          c: changed,
        },
        { m: numOutputs, n: numInputs, k: rank, alpha: scale, beta: 1 },
      );
      const norms = context.empty([numOutputs], weight.dtype);
      context.device.run("rowNorms", { x: changed, norms, numRows: numOutputs, width: numInputs });
      return norms;
    });
  }

  override projection(place: ProjectionPlace): ProjectionAdapter | undefined {
    return this.#byPlace.get(placeKey(place));
  }

  initialise(context: Context, seed: number): void {
    initialiseLowRank(this.parameters, this.places, { init: this.config.init, seed });
    this.#forgetNorms();
    const projections = new Map(
      [...this.#decoder.projections()].map((projection) => [placeKey(projection.place), projection]),
    );
    for (const { place, modules } of this.places) {
      const weights = projections.get(placeKey(place))?.weights;
      if (weights === undefined) continue;
      for (const module of modules) {
        const magnitude = this.parameters.get(magnitudeName(module));
        context.scope(() => {
          const norms = this.#rowNorms(context, place, { module, weights });
          context.device.run("convert", { x: norms, y: magnitude, numElements: magnitude.numElements });
        });
      }
    }
  }

  tensors(_context: Context): AdapterTensor[] {
    return [
      ...lowRankTensors(this.parameters, this.places),
      ...this.places
        .flatMap(({ modules }) => modules)
        .map((module) => ({
          name: magnitudeName(module),
          tensor: this.parameters.get(magnitudeName(module)).alias(),
        })),
    ];
  }

  #forgetNorms(): void {
    for (const norms of this.#norms.values()) norms.dispose();
    this.#norms.clear();
  }

  override dispose(): void {
    this.#forgetNorms();
    super.dispose();
  }
}

/** y (N, F) += bias (F), in place: a product over nothing. */
function addBias(context: Context, y: Tensor, bias: Tensor): void {
  const { numRows, width } = y;
  context.device.run("matmul", {
    a: y,
    b: y,
    c: y,
    bias,
    m: numRows,
    n: width,
    k: 0,
    lda: width,
    ldb: width,
    ldc: width,
    transposeA: 0,
    transposeB: 0,
    alpha: 1,
    beta: 1,
  });
}

/** Throws ConfigError for a quantised base: what is made of its rows' norms needs them in floats. */
export function expectDoraBase({ quantised }: Decoder): void {
  if (quantised.size === 0) return;
  throw new ConfigError("adapter", "expected a base in f32 or bf16 for dora, got a quantised one", {
    hint: "load the base without quantisation, or use lora",
  });
}

/** Whole, or to be asked for rows. */
function denseWeight({ weight }: ProjectionWeights): Tensor | StackedWeight {
  invariant(weight instanceof Tensor || weight instanceof StackedWeight, "a base that is not quantised");
  return weight;
}

/** y (F, C) = rows of the weight from `begin` on. */
function copyRows(
  context: Context,
  weight: Tensor | StackedWeight,
  { begin, y }: { begin: number; y: Tensor },
): void {
  const end = begin + y.numRows;
  let element = 0;
  for (using rows of weight instanceof Tensor ? [weight.rows(begin, end)] : weight.runs(begin, end)) {
    context.device.run("convert", { x: rows, y: y.at(element), numElements: rows.numElements });
    element += rows.numElements;
  }
}
