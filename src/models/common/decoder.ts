/**
 * The decoder that all families share: pre-norm blocks of causal attention and feed-forward, a final norm and a head. Each
 * residual addition is fused into the norm after it, so a block hands on its stream and a pending `delta`.
 *
 * Two ways through: `forward` over whole (packed) sequences, on a tape when training, and `step` over a paged cache.
 */
import { invariant } from "../../base/index.ts";
import type { FloatDtype } from "../../base/index.ts";
import {
  activation,
  activationCodes,
  embedding,
  gatedActivation,
  gatherRows,
  gradientSink,
  languageModelLoss,
  linear,
  normalise,
  pagedSelfAttention,
  recomputed,
  rotaryTable,
  selfAttention,
  tokenLosses,
} from "../../tensor/index.ts";
import type {
  Context,
  LanguageModelLossOptions,
  NormResult,
  PagedBatch,
  PagedLayerCache,
  Parameter,
  ParameterStore,
  QuantisedFormat,
  QuantisedWeight,
  RotaryTable,
  RowIndex,
  StackedWeight,
  Tensor,
  TokenLossOptions,
} from "../../tensor/index.ts";
import type { DecoderConfig } from "./config.ts";
import { DecoderWeights } from "./decoderWeights.ts";
import type { DecoderOptions, LayerWeights } from "./decoderWeights.ts";
import { projectionSites } from "./projection.ts";
import type { DecoderAdapter, EmbeddingAdapter, Projection, RowChoices, Sublayer } from "./projection.ts";
import { rotaryAmplitude, rotaryFrequencies } from "./rotary.ts";
import { embeddingName, headName, positionsName } from "./specs.ts";

/** Whole sequences: N = numSequences * sequenceLength rows, or packed by cuSeqLens. */
export interface SequenceBatch {
  /** i32 (N) */
  tokens: Tensor;
  /** i32 (N) */
  positions: Tensor;
  numSequences: number;
  sequenceLength: number;
  /** i32 (numSequences + 1) */
  cuSeqLens?: Tensor | undefined;
  /** Where sequences share rows, which then lie in no order that attention could read: `cuSeqLens` counts tokens. */
  sharing?: SharedRows | undefined;
}

/**
 * Sequences that begin with the same tokens have one row for each of these. All that is done row by row is done once; attention, which alone
 * mixes rows, reads the sequences whole, from copies.
 */
export interface SharedRows {
  /** For each token of the sequences, one sequence after another: its row. */
  tokens: RowIndex;
  /** For each row: the first token that it stands for. */
  rows: RowIndex;
  /** i32, for each token. */
  positions: Tensor;
}

export interface ForwardOptions {
  /** Gradients flow down to the embedding also where its weight is frozen. */
  reachesEmbedding?: boolean | undefined;
}

interface LossRows {
  /** Rows that `targets`, and the losses, are of; all rows when absent. The head is run for these alone. */
  targetRows?: RowIndex | undefined;
}

export type DecoderLossOptions = Omit<LanguageModelLossOptions, "weight"> & ForwardOptions & LossRows;

export type DecoderTokenLossOptions = Omit<TokenLossOptions, "weight"> & ForwardOptions & LossRows;

/** The residual stream (N, C) and what is still to be added to it. */
interface Stream {
  x: Tensor;
  delta: Tensor | undefined;
}

export class Decoder implements Disposable {
  readonly config: DecoderConfig;
  readonly dtype: FloatDtype;
  readonly rotary: RotaryTable | undefined;
  readonly #weights: DecoderWeights;
  readonly #owned: DisposableStack;
  #embeddingAdapter: EmbeddingAdapter | undefined;
  #adapter: DecoderAdapter | undefined;

  /**
   * Allocates zeroed weights, but for those that are mapped: `parameters.initialise(seed)` or a loader fills them. Throws OutOfMemoryError,
   * ConfigError where weights were mapped for a model that is held in another way.
   */
  constructor(context: Context, config: DecoderConfig, options: DecoderOptions) {
    this.config = config;
    this.dtype = options.dtype;
    using made = new DisposableStack();
    this.#weights = made.use(new DecoderWeights(context, config, options));
    this.rotary =
      config.rotary &&
      rotaryTable(context, {
        rotaryDim: config.rotary.rotaryDim,
        maxPositions: config.maxPositions,
        frequencies: rotaryFrequencies(config.rotary),
        amplitude: rotaryAmplitude(config.rotary),
      });
    if (this.rotary !== undefined) made.use(this.rotary.cosSin);
    this.#owned = made.move();
  }

  get parameters(): ParameterStore {
    return this.#weights.parameters;
  }

  /** What the blocks' matrices are held as; undefined: `dtype`. */
  get quantise(): QuantisedFormat | undefined {
    return this.#weights.quantise;
  }

  /** Matrices that are quantised, by their names; empty for a model in floats. */
  get quantised(): ReadonlyMap<string, QuantisedWeight> {
    return this.#weights.quantised;
  }

  /** Matrices whose rows lie in several places of a file, by their names, which `parameters` lacks. */
  get stacked(): ReadonlyMap<string, StackedWeight> {
    return this.#weights.stacked;
  }

  /** Throws ConfigError where some of the weights can only be read. */
  expectWritable(): void {
    this.#weights.expectWritable();
  }

  /** The adapter that `attach` put on, which stays its maker's to dispose. */
  get adapter(): DecoderAdapter | undefined {
    return this.#adapter;
  }

  /** Every linear layer of the blocks, in order. */
  *projections(): Generator<Projection> {
    for (const weights of this.#weights.layers) for (const site of projectionSites) yield weights[site];
  }

  /** Puts an adapter on in place of the one before; undefined gives the model as it was. */
  attach(adapter: DecoderAdapter | undefined): void {
    this.#adapter = adapter;
    this.#embeddingAdapter = adapter?.embedding;
    for (const projection of this.projections()) projection.adapter = adapter?.projection(projection.place);
    for (const [layer, weights] of this.#weights.layers.entries()) {
      weights.adapters = {
        attention: adapter?.sublayer({ layer, sublayer: "attention" }),
        mlp: adapter?.sublayer({ layer, sublayer: "mlp" }),
      };
    }
  }

  /** Runs `body` with another adapter, or with none. */
  withAdapter<Result>(adapter: DecoderAdapter | undefined, body: () => Result): Result {
    const previous = this.#adapter;
    this.attach(adapter);
    try {
      return body();
    } finally {
      this.attach(previous);
    }
  }

  /** Output head, (V, C). */
  get head(): Parameter {
    return this.parameters.get(this.config.tiesEmbeddings ? embeddingName : headName);
  }

  /** Hidden states after the final norm, (N, C). */
  forward(context: Context, batch: SequenceBatch, options: ForwardOptions = {}): Tensor {
    // A block that is made again is recorded for its inputs' sake: the first one's must want a gradient when an adapter does.
    const makesBlocksAgain = context.tape?.recompute === "block" && this.#adapter !== undefined;
    const reachesEmbedding = options.reachesEmbedding === true || makesBlocksAgain;
    const attend = (qkv: Tensor): Tensor => this.#attend(context, qkv, batch);
    const embed = (): Stream => {
      const stream = this.#embed(context, batch.tokens, batch.positions);
      if (reachesEmbedding && stream.x.variable === undefined) gradientSink(context, stream.x);
      return stream;
    };
    return this.#run(context, embed, (weights, stream) => {
      if (context.tape?.recompute !== "block") return this.#layer(context, { weights, stream, attend });
      const { x, delta } = stream;
      const [nextX, nextDelta] = recomputed(
        context,
        delta === undefined ? [x] : [x, delta],
        ([innerX, innerDelta]) => {
          const next = this.#layer(context, { weights, stream: { x: innerX, delta: innerDelta }, attend });
          invariant(next.delta !== undefined, "a block leaves a delta");
          return [next.x, next.delta];
        },
      );
      return { x: nextX, delta: nextDelta };
    });
  }

  #attend(context: Context, qkv: Tensor, { sharing, ...batch }: SequenceBatch): Tensor {
    const shape = { ...batch, heads: this.config, rotary: this.rotary };
    if (sharing === undefined) return selfAttention(context, qkv, shape);
    return context.scope(() => {
      const copies = gatherRows(context, qkv, sharing.tokens);
      const attended = selfAttention(context, copies, { ...shape, positions: sharing.positions });
      // A shared row's tokens see the same keys, so their results are one: the first's is taken, and the others' gradient is zero.
      return gatherRows(context, attended, sharing.rows);
    });
  }

  /** Hidden states after the final norm, (N, C), of rows whose earlier keys and values are in `caches`, one per layer. */
  step(
    context: Context,
    tokens: Tensor,
    { batch, caches, ...rows }: { batch: PagedBatch; caches: readonly PagedLayerCache[] } & RowChoices,
  ): Tensor {
    const embed = (): Stream => this.#embed(context, tokens, batch.positions);
    return this.#run(context, embed, (weights, stream, layer) => {
      const attend = (qkv: Tensor): Tensor =>
        pagedSelfAttention(context, qkv, {
          heads: this.config,
          rotary: this.rotary,
          cache: caches[layer],
          batch,
        });
      return this.#layer(context, { weights, stream, attend, rows });
    });
  }

  /** Logits f32 (N, numTokens) of hidden states (N, C), over the first `numTokens` of the vocabulary; all of it by default. */
  logits(context: Context, hidden: Tensor, numTokens = this.config.vocabSize): Tensor {
    return context.scope(() => {
      const weight = context.adopt(this.head.rows(0, numTokens));
      return linear(context, hidden, { weight, outputDtype: "f32" });
    });
  }

  /** Losses f32 of a batch's rows, (N), or of `targetRows`; on a tape, ready for `tape.backward`. */
  loss(context: Context, batch: SequenceBatch, options: DecoderLossOptions): Tensor {
    const { reachesEmbedding, targetRows, ...lossOptions } = options;
    return context.scope(() => {
      const hidden = this.#hiddenForHead(context, batch, { reachesEmbedding, targetRows });
      return languageModelLoss(context, hidden, { ...lossOptions, weight: this.head });
    });
  }

  /** As `loss`, with the gradient of each row's loss given to `tape.backward` as a seed. */
  tokenLosses(context: Context, batch: SequenceBatch, options: DecoderTokenLossOptions): Tensor {
    const { reachesEmbedding, targetRows, ...lossOptions } = options;
    return context.scope(() => {
      const hidden = this.#hiddenForHead(context, batch, { reachesEmbedding, targetRows });
      return tokenLosses(context, hidden, { ...lossOptions, weight: this.head });
    });
  }

  #hiddenForHead(
    context: Context,
    batch: SequenceBatch,
    { targetRows, ...options }: ForwardOptions & LossRows,
  ): Tensor {
    const hidden = this.forward(context, batch, options);
    return targetRows === undefined ? hidden : gatherRows(context, hidden, targetRows);
  }

  /** Learned positions are the first thing added to the stream: the first norm does it on its way. */
  #embed(context: Context, tokens: Tensor, positions: Tensor): Stream {
    const weight = this.parameters.get(embeddingName);
    const learned = this.parameters.find(positionsName);
    return {
      x:
        this.#embeddingAdapter === undefined
          ? embedding(context, tokens, weight)
          : this.#embeddingAdapter.apply(context, tokens, weight),
      delta: learned && embedding(context, positions, learned),
    };
  }

  #run(
    context: Context,
    embed: () => Stream,
    runLayer: (weights: LayerWeights, stream: Stream, layer: number) => Stream,
  ): Tensor {
    return context.scope(() => {
      let stream = embed();
      for (const [layer, weights] of this.#weights.layers.entries()) {
        const next = context.scope(() => runLayer(weights, stream, layer));
        // The tape holds what it needs of the spent stream; waiting for the end of the scope would hold all of it.
        if (next.x !== stream.x) stream.x.dispose();
        stream.delta?.dispose();
        stream = next;
      }
      return normalise(context, stream.x, { addend: stream.delta, weights: this.#weights.finalNorm }).y;
    });
  }

  #layer(
    context: Context,
    {
      weights,
      stream,
      attend,
      rows = {},
    }: { weights: LayerWeights; stream: Stream; attend: (qkv: Tensor) => Tensor; rows?: RowChoices },
  ): Stream {
    const { qkv, output, up, down, adapters } = weights;
    const adapted = (sublayer: Sublayer, input: Tensor, result: Tensor): Tensor =>
      adapters[sublayer]?.apply(context, { input, output: result }) ?? result;
    const project = (projection: Projection, { y, codes }: NormResult): Tensor =>
      codes === undefined
        ? projection.apply(context, y, rows)
        : projection.applyToCodes(context, codes, y.dtype);
    const attention = normalise(context, stream.x, {
      addend: stream.delta,
      weights: weights.attentionNorm,
      withCodes: qkv.takesCodes(context),
    });
    const attended = context.scope(() => {
      const mixed = attend(project(qkv, attention));
      return adapted("attention", attention.y, output.apply(context, mixed, rows));
    });
    const mlp = normalise(context, attention.sum, {
      addend: attended,
      weights: weights.mlpNorm,
      withCodes: up.takesCodes(context),
    });
    const delta = context.scope(() => {
      const raised = project(up, mlp);
      return adapted("mlp", mlp.y, this.#lower(context, down, { raised, rows }));
    });
    return { x: mlp.sum, delta };
  }

  /** The activation and the projection after it. */
  #lower(context: Context, down: Projection, { raised, rows }: { raised: Tensor; rows: RowChoices }): Tensor {
    const { activation: name, isGated } = this.config;
    if (down.takesCodes(context))
      return down.applyToCodes(context, activationCodes(context, raised, { name, isGated }), raised.dtype);
    const active = isGated ? gatedActivation(context, raised, name) : activation(context, raised, name);
    return down.apply(context, active, rows);
  }

  dispose(): void {
    this.#owned.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
