/**
 * The linear layers of the decoder: each is applied through one object, so that an adapter or another form of its weight changes
 * what the object holds and not the forward code.
 *
 * An adapter sits in one of three places: on a projection (LoRA, DoRA, IA3), around a sublayer (Houlsby, parallel), or before the
 * first layer (virtual tokens). A decoder holds at most one `DecoderAdapter`; attaching another swaps it.
 */
import type { Dtype } from "../../base/index.ts";
import { linear, linearOfCodes, takesCodes } from "../../tensor/index.ts";
import type { Context, LinearWeight, RowCodes, Tensor } from "../../tensor/index.ts";

/** The linear layers of a block: fused query, key and value; attention output; (gate and) up; down. */
export const projectionSites = ["qkv", "output", "up", "down"] as const;
export type ProjectionSite = (typeof projectionSites)[number];

export interface ProjectionPlace {
  layer: number;
  site: ProjectionSite;
}

/** What a projection computes with: y = x W^T + bias, W (F, C), bias (F). */
export interface ProjectionWeights {
  weight: LinearWeight;
  bias: Tensor | undefined;
}

/** What differs from row to row of one call. */
export interface RowChoices {
  /** i32 (N): which of several adapters each row takes; absent where one adapter serves all rows. */
  adapterRows?: Tensor | undefined;
}

/** Changes what a projection gives. */
export interface ProjectionAdapter {
  /** x (N, C) -> (N, F): the whole projection, its own product included. */
  apply(context: Context, x: Tensor, weights: ProjectionWeights, rows: RowChoices): Tensor;
}

export type Sublayer = "attention" | "mlp";

/** Changes what a sublayer hands to the residual stream. */
export interface SublayerAdapter {
  /** input (N, C): the normalised rows that the sublayer read; output (N, C): what it made of them. Gives (N, C). */
  apply(context: Context, rows: { input: Tensor; output: Tensor }): Tensor;
}

/** Rows of the embedding that are not the model's own. */
export interface EmbeddingAdapter {
  /** tokens i32 (N), embedding (V, C) -> (N, C). */
  apply(context: Context, tokens: Tensor, embedding: Tensor): Tensor;
}

/** What a method puts where; undefined where it leaves the model as it is. */
export interface DecoderAdapter {
  projection(place: ProjectionPlace): ProjectionAdapter | undefined;
  sublayer(place: { layer: number; sublayer: Sublayer }): SublayerAdapter | undefined;
  readonly embedding: EmbeddingAdapter | undefined;
}

export class Projection {
  readonly place: ProjectionPlace;
  /** Replaced where the weight takes another form. */
  weights: ProjectionWeights;
  adapter: ProjectionAdapter | undefined;

  constructor(place: ProjectionPlace, weights: ProjectionWeights) {
    this.place = place;
    this.weights = weights;
  }

  /** Whether `applyToCodes` may be called: an fp8 weight without an adapter, and no gradients. */
  takesCodes(context: Context): boolean {
    return this.adapter === undefined && takesCodes(context, this.weights.weight);
  }

  /** Rows (N, C) in E4M3 -> (N, F) in `outputDtype`. */
  applyToCodes(context: Context, codes: RowCodes, outputDtype: Dtype): Tensor {
    return linearOfCodes(context, codes, { ...this.weights, outputDtype });
  }

  /** x (N, C) -> (N, F). Throws ShapeError. */
  apply(context: Context, x: Tensor, rows: RowChoices = {}): Tensor {
    return this.adapter === undefined
      ? linear(context, x, this.weights)
      : this.adapter.apply(context, x, this.weights, rows);
  }
}
