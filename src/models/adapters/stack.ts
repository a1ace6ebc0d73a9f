/**
 * Several LoRA adapters on one base in one batch, chosen row by row (Chen et al., "Punica: Multi-Tenant LoRA Serving", 2023). The factors of
 * all slots lie in tensors that stay where they are, so that a decode graph captured once serves whatever is loaded later.
 */
import { ConfigError, dtypeBytes, encodeValues } from "../../base/index.ts";
import type { Dtype, Shape } from "../../base/index.ts";
import { linear, Storage, Tensor } from "../../tensor/index.ts";
import type { Context } from "../../tensor/index.ts";
import type { Decoder } from "../common/decoder.ts";
import type { ModelFamily } from "../common/family.ts";
import type { DecoderAdapter, ProjectionAdapter, ProjectionPlace } from "../common/projection.ts";
import type { Adapter } from "./adapter.ts";
import { LoraAdapter, lowRankA, lowRankB } from "./lora.ts";
import { byProjection, placeKey, targetModules } from "./targets.ts";
import type { TargetModule } from "./targets.ts";

export interface AdapterStackOptions {
  family: ModelFamily;
  numSlots: number;
  /** Largest rank of an adapter; room for it is taken at every module and slot. */
  maxRank: number;
}

/** The factors of one module in all slots. */
interface ModuleSlots {
  module: TargetModule;
  /** (numSlots, R, C) */
  a: Tensor;
  /** (numSlots, n, R) */
  b: Tensor;
  /** f32 (numSlots); 0 where the slot's adapter leaves the module alone. */
  scales: Tensor;
}

function zeros(device: Context["device"], shape: Shape, dtype: Dtype): Tensor {
  const numBytes = shape.reduce((total, length) => total * length, dtypeBytes(dtype));
  const y = new Tensor(new Storage(device.allocate(numBytes)), { shape, dtype });
  device.run("fill", { y, numElements: y.numElements, value: 0 });
  return y;
}

export class AdapterStack implements DecoderAdapter, Disposable {
  readonly embedding = undefined;
  readonly numSlots: number;
  readonly maxRank: number;
  readonly #modules = new Map<string, ModuleSlots>();
  readonly #byPlace: ReadonlyMap<string, ProjectionAdapter>;

  /** Empty slots. Throws OutOfMemoryError. */
  constructor(context: Context, decoder: Decoder, { family, numSlots, maxRank }: AdapterStackOptions) {
    const { device } = context;
    this.numSlots = numSlots;
    this.maxRank = maxRank;
    const places = byProjection(targetModules(family, decoder.config));
    this.#byPlace = new Map(
      places.map(({ place, modules }) => {
        const slots = modules.map((module): ModuleSlots => {
          const { numInputs, numOutputs } = module;
          const entry = {
            module,
            a: zeros(device, [numSlots, maxRank, numInputs], decoder.dtype),
            b: zeros(device, [numSlots, numOutputs, maxRank], decoder.dtype),
            scales: zeros(device, [numSlots], "f32"),
          };
          this.#modules.set(module.path, entry);
          return entry;
        });
        return [placeKey(place), this.#projectionAdapter(slots)];
      }),
    );
  }

  #projectionAdapter(parts: readonly ModuleSlots[]): ProjectionAdapter {
    return {
      apply: (context, x, weights, { adapterRows }) => {
        const y = linear(context, x, weights);
        if (adapterRows === undefined) return y;
        for (const { module, a, b, scales } of parts) {
          context.device.run("adapterLinear", {
            x,
            a,
            b,
            scales,
            slots: adapterRows,
            y: y.at(module.outputStart),
            numRows: x.numRows,
            widthIn: module.numInputs,
            widthOut: module.numOutputs,
            rank: this.maxRank,
            numSlots: this.numSlots,
            xRowStride: x.width,
            yRowStride: y.width,
          });
        }
        return y;
      },
    };
  }

  projection(place: ProjectionPlace): ProjectionAdapter | undefined {
    return this.#byPlace.get(placeKey(place));
  }

  sublayer(): undefined {
    return undefined;
  }

  /** Puts an adapter's factors into a slot; the adapter is needed no more. Throws ConfigError for another method or too high a rank. */
  put(slot: number, adapter: Adapter): void {
    if (!(adapter instanceof LoraAdapter)) {
      throw new ConfigError("adapter", `expected lora to serve beside others, got ${adapter.config.method}`, {
        hint: "serve it alone, without a name, or merge it into the model",
      });
    }
    const modules = adapter.places.flatMap(({ modules: placed }) => placed);
    const highest = Math.max(...modules.map(({ rank }) => rank));
    if (highest > this.maxRank) {
      throw new ConfigError("adapter", `expected a rank of at most ${this.maxRank}, got ${highest}`, {
        hint: "open the model with more room for adapters",
      });
    }
    for (const { scales } of this.#modules.values()) writeAt(scales, slot, [0]);
    for (const { place, modules: placed } of adapter.places) {
      const a = adapter.parameters.get(lowRankA(place));
      for (const module of placed) {
        const entry = this.#modules.get(module.path);
        if (entry === undefined)
          throw new ConfigError("adapter", `expected a module of the model, got ${module.path}`);
        const { rank, rankStart, numInputs, numOutputs, scale } = module;
        using rows = a.rows(rankStart, rankStart + rank);
        const low = new Float64Array(this.maxRank * numInputs);
        low.set(rows.toArray());
        writeAt(entry.a, slot * low.length, low);
        const factors = adapter.parameters.get(lowRankB(module)).toArray();
        const high = new Float64Array(numOutputs * this.maxRank);
        for (let j = 0; j < numOutputs; j++)
          high.set(factors.subarray(j * rank, (j + 1) * rank), j * this.maxRank);
        writeAt(entry.b, slot * high.length, high);
        writeAt(entry.scales, slot, [scale]);
      }
    }
  }

  dispose(): void {
    for (const { a, b, scales } of this.#modules.values())
      for (const tensor of [a, b, scales]) tensor.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** Queues a copy of `values` to the elements from `element` on. */
function writeAt(tensor: Tensor, element: number, values: ArrayLike<number>): void {
  const { buffer, byteOffset, dtype } = tensor.at(element);
  tensor.device.upload(buffer, byteOffset, encodeValues(dtype, values));
}
