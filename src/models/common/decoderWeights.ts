/**
 * The weights of a decoder, and where each lies: in the parameter arenas, in codes of a quantised format, or in a file that is mapped. Knows what
 * belongs to which layer; nothing of what is computed with it.
 */
import { ConfigError } from "../../base/index.ts";
import type { FloatDtype } from "../../base/index.ts";
import { ParameterStore, quantisedWeight, StackedWeight } from "../../tensor/index.ts";
import type { Context, NormWeights, QuantisedFormat, QuantisedWeight, Tensor } from "../../tensor/index.ts";
import type { DecoderConfig } from "./config.ts";
import type { MappedWeights } from "./mapping.ts";
import { Projection } from "./projection.ts";
import type { ProjectionPlace, Sublayer, SublayerAdapter } from "./projection.ts";
import { finalNormBiasName, finalNormGainName, layerNames, splitSpecs } from "./specs.ts";

export interface DecoderOptions {
  dtype: FloatDtype;
  /** dtype of the gradients; absent for inference. */
  gradientDtype?: FloatDtype | undefined;
  /** Holds the blocks' matrices in 8 or 4 bits, frozen. Embedding, head, norms and biases keep `dtype`. */
  quantise?: QuantisedFormat | undefined;
  /** Weights that lie in files, in `dtype`: the decoder takes handles of its own. For inference only. */
  mapped?: MappedWeights | undefined;
}

export interface LayerWeights {
  attentionNorm: NormWeights;
  qkv: Projection;
  output: Projection;
  mlpNorm: NormWeights;
  up: Projection;
  down: Projection;
  /** What an adapter puts around the sublayers. */
  adapters: Partial<Record<Sublayer, SublayerAdapter | undefined>>;
}

export class DecoderWeights implements Disposable {
  readonly parameters: ParameterStore;
  readonly quantise: QuantisedFormat | undefined;
  readonly quantised: ReadonlyMap<string, QuantisedWeight>;
  readonly stacked: ReadonlyMap<string, StackedWeight>;
  readonly layers: readonly LayerWeights[];
  readonly finalNorm: NormWeights;
  readonly #config: DecoderConfig;
  readonly #isMapped: boolean;
  readonly #owned: DisposableStack;

  /** As the constructor of Decoder. */
  constructor(
    { device }: Context,
    config: DecoderConfig,
    { dtype, gradientDtype, quantise, mapped }: DecoderOptions,
  ) {
    this.#config = config;
    this.quantise = quantise;
    const { dense, quantised } = splitSpecs(config, quantise);
    mapped?.expectAmong(dense, dtype);
    const stacked = mapped?.stacked ?? new Map<string, readonly Tensor[]>();
    using made = new DisposableStack();
    this.parameters = made.use(
      new ParameterStore(
        device,
        dense.filter(({ name }) => !stacked.has(name)),
        { dtype, gradientDtype, elsewhere: mapped?.whole },
      ),
    );
    this.stacked = new Map(
      [...stacked].map(([name, parts]) => [
        name,
        made.use(new StackedWeight(parts.map((part) => part.alias()))),
      ]),
    );
    this.#isMapped = mapped !== undefined && mapped.byteLength > 0;
    this.quantised = new Map(
      quantised.map(({ name, shape, format }) => [
        name,
        made.use(quantisedWeight(device, shape, { format })),
      ]),
    );
    this.layers = Array.from({ length: config.numLayers }, (_, layer) => this.#layerWeights(layer));
    this.finalNorm = this.#normWeights(finalNormGainName, finalNormBiasName);
    this.#owned = made.move();
  }

  /** Throws ConfigError where some of the weights can only be read. */
  expectWritable(): void {
    if (!this.#isMapped) return;
    throw new ConfigError(
      "model",
      "expected weights in memory, which can be changed, got some that a file shows",
      {
        hint: "open the model without mapping it",
      },
    );
  }

  #normWeights(gain: string, bias: string): NormWeights {
    return { ...this.#config.norm, gain: this.parameters.get(gain), bias: this.parameters.find(bias) };
  }

  #layerWeights(layer: number): LayerWeights {
    const names = layerNames(layer);
    const projection = (site: ProjectionPlace["site"]): Projection =>
      new Projection(
        { layer, site },
        {
          weight:
            this.quantised.get(names[site]) ??
            this.stacked.get(names[site]) ??
            this.parameters.get(names[site]),
          bias: this.parameters.find(names[`${site}Bias`]),
        },
      );
    return {
      attentionNorm: this.#normWeights(names.attentionNormGain, names.attentionNormBias),
      qkv: projection("qkv"),
      output: projection("output"),
      mlpNorm: this.#normWeights(names.mlpNormGain, names.mlpNormBias),
      up: projection("up"),
      down: projection("down"),
      adapters: {},
    };
  }

  dispose(): void {
    this.#owned.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
