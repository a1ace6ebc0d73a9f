/**
 * Bottleneck adapters: Houlsby's (Houlsby et al., "Parameter-Efficient Transfer Learning for NLP", 2019), z + Up f(Down norm(z)) on what a
 * sublayer z gives, and parallel ones (He et al., "Towards a Unified View of Parameter-Efficient Transfer Learning", 2022),
 * z + scale Up f(Down norm(x)) from what the sublayer reads. Up begins at zero. Without biases, as in NeMo.
 */
import {
  activation,
  add,
  dropout,
  linear,
  normalise,
  ParameterStore,
  scaleColumns,
} from "../../tensor/index.ts";
import type { Context, ParameterSpec, Tensor } from "../../tensor/index.ts";
import { dtypeBytes } from "../../base/index.ts";
import { Storage, Tensor as DeviceTensor } from "../../tensor/index.ts";
import type { DecoderConfig } from "../common/config.ts";
import type { Decoder } from "../common/decoder.ts";
import type { Sublayer, SublayerAdapter } from "../common/projection.ts";
import { Adapter } from "./adapter.ts";
import type { AdapterOptions, AdapterTensor } from "./adapter.ts";
import type { BottleneckConfig } from "./config.ts";

interface BottleneckPlace {
  layer: number;
  sublayer: Sublayer;
}

const normEps = 1e-5;

export class BottleneckAdapter extends Adapter {
  readonly config: BottleneckConfig;
  readonly parameters: ParameterStore;
  readonly #places: readonly BottleneckPlace[];
  readonly #byPlace: ReadonlyMap<string, SublayerAdapter>;
  /** (C) of the scale, where it is not one. */
  readonly #scale: Tensor | undefined;

  constructor(decoder: Decoder, { config, ...options }: { config: BottleneckConfig } & AdapterOptions) {
    super();
    this.config = config;
    const { width } = decoder.config;
    this.#places = bottleneckPlaces(decoder.config, config);
    const { device } = decoder.head;
    this.parameters = new ParameterStore(device, bottleneckSpecs(decoder.config, config), options);
    const scale = config.method === "parallel" ? config.scale : 1;
    if (scale !== 1) {
      this.#scale = new DeviceTensor(new Storage(device.allocate(width * dtypeBytes(options.dtype))), {
        shape: [width],
        dtype: options.dtype,
      });
      device.run("fill", { y: this.#scale, numElements: width, value: scale });
    }
    this.#byPlace = new Map(
      this.#places.map((place, index) => [
        placeName(place),
        { apply: (context, rows) => this.#apply(context, rows, { prefix: placeName(place), index }) },
      ]),
    );
  }

  #apply(
    context: Context,
    { input, output }: { input: Tensor; output: Tensor },
    { prefix, index }: { prefix: string; index: number },
  ): Tensor {
    const { config, parameters } = this;
    const read = config.method === "houlsby" ? output : input;
    const gain = parameters.find(`${prefix}.norm.weight`);
    const bias = parameters.find(`${prefix}.norm.bias`);
    const normed =
      gain === undefined
        ? read
        : normalise(context, read, {
            weights: { kind: "layer-norm", gain, bias, eps: normEps, gainOffset: 0 },
          }).y;
    const low = linear(context, normed, { weight: parameters.get(`${prefix}.down.weight`) });
    const active = activation(context, low, config.activation);
    const raised = linear(context, active, { weight: parameters.get(`${prefix}.up.weight`) });
    const scaled =
      this.#scale === undefined ? raised : scaleColumns(context, raised, [{ start: 0, scale: this.#scale }]);
    const bits = this.dropoutAt(index, this.#places.length);
    const kept =
      bits === undefined || config.dropout === 0
        ? scaled
        : dropout(context, scaled, { probability: config.dropout, ...bits });
    return add(context, output, kept);
  }

  override sublayer(place: BottleneckPlace): SublayerAdapter | undefined {
    return this.#byPlace.get(placeName(place));
  }

  initialise(_context: Context, seed: number): void {
    this.parameters.initialise(seed);
  }

  tensors(_context: Context): AdapterTensor[] {
    return [...this.parameters].map((parameter) => ({ name: parameter.name, tensor: parameter.alias() }));
  }

  override dispose(): void {
    this.#scale?.dispose();
    super.dispose();
  }
}

function placeName({ layer, sublayer }: BottleneckPlace): string {
  return `layers.${layer}.${sublayer}.adapter`;
}

function bottleneckPlaces({ numLayers }: DecoderConfig, config: BottleneckConfig): BottleneckPlace[] {
  const layers = config.layers ?? Array.from({ length: numLayers }, (_, layer) => layer);
  return layers.flatMap((layer) => config.sublayers.map((sublayer) => ({ layer, sublayer })));
}

/** Norms, and both matrices of every place. */
export function bottleneckSpecs(model: DecoderConfig, config: BottleneckConfig): ParameterSpec[] {
  return bottleneckPlaces(model, config).flatMap((place) =>
    placeSpecs(place, { width: model.width, config }),
  );
}

function placeSpecs(
  place: BottleneckPlace,
  { width, config }: { width: number; config: BottleneckConfig },
): ParameterSpec[] {
  const prefix = placeName(place);
  const { dim } = config;
  const std = Math.sqrt(2 / (width + dim));
  const constant = (value: number) => ({ kind: "constant", value }) as const;
  const norm = config.norm
    ? [
        { name: `${prefix}.norm.weight`, shape: [width], init: constant(1), decays: false },
        { name: `${prefix}.norm.bias`, shape: [width], init: constant(0), decays: false },
      ]
    : [];
  return [
    ...norm,
    { name: `${prefix}.down.weight`, shape: [dim, width], init: { kind: "normal", std }, decays: true },
    { name: `${prefix}.up.weight`, shape: [width, dim], init: constant(0), decays: true },
  ];
}
