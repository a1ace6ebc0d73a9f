/**
 * Several LoRA adapters on one base in one batch, chosen row by row (Chen et al., "Punica: Multi-Tenant LoRA Serving", 2023). The factors of
 * all slots lie in tensors that stay where they are, so that a decode graph captured once serves whatever is loaded later.
 */
import { ConfigError, dtypeBytes, encodeValues, invariant } from "../../base/index.ts";
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

/** The factors of the modules of one projection, its parts in the order of their outputs, in all slots. */
interface ProjectionSlots {
  modules: readonly TargetModule[];
  /** (numSlots, numParts, R, C) */
  a: Tensor;
  /** (numSlots, F, R) */
  b: Tensor;
  /** f32 (numSlots, numParts); 0 where the slot's adapter leaves the module alone. */
  scales: Tensor;
}

/** Of the operator adapterUp. */
const mostParts = 3;

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
  readonly #slots = new Map<string, ProjectionSlots>();
  readonly #adapters: ReadonlyMap<string, ProjectionAdapter>;

  /** Empty slots. Throws OutOfMemoryError. */
  constructor(context: Context, decoder: Decoder, { family, numSlots, maxRank }: AdapterStackOptions) {
    const { device } = context;
    this.numSlots = numSlots;
    this.maxRank = maxRank;
    for (const { place, modules } of byProjection(targetModules(family, decoder.config))) {
      const numParts = modules.length;
      invariant(numParts <= mostParts, `${numParts} modules in ${placeKey(place)}`);
      const parts = modules.toSorted((left, right) => left.outputStart - right.outputStart);
      const { numInputs } = parts[0];
      const last = parts[numParts - 1];
      const numOutputs = last.outputStart + last.numOutputs;
      this.#slots.set(placeKey(place), {
        modules: parts,
        a: zeros(device, [numSlots, numParts, maxRank, numInputs], decoder.dtype),
        b: zeros(device, [numSlots, numOutputs, maxRank], decoder.dtype),
        scales: zeros(device, [numSlots, numParts], "f32"),
      });
    }
    this.#adapters = new Map([...this.#slots].map(([key, slots]) => [key, this.#projectionAdapter(slots)]));
  }

  #projectionAdapter({ modules, a, b, scales }: ProjectionSlots): ProjectionAdapter {
    const { numSlots, maxRank: rank } = this;
    const numParts = modules.length;
    const width = b.shape[1];
    const [secondStart = width, thirdStart = width] = modules.slice(1).map(({ outputStart }) => outputStart);
    return {
      apply: (context, x, weights, { adapterRows: slots }) => {
        if (slots === undefined) return linear(context, x, weights);
        const { device } = context;
        const { numRows } = x;
        using low = context.empty([numRows, numParts * rank], "f32");
        // Before the frozen product, which can hide it: that one reads its weight meanwhile.
        device.run("adapterDown", {
          x,
          a,
          slots,
          low,
          numRows,
          width: x.width,
          rank: numParts * rank,
          numSlots,
          xRowStride: x.width,
        });
        const y = linear(context, x, weights);
        device.run("adapterUp", {
          low,
          b,
          scales,
          slots,
          y,
          numRows,
          width,
          rank,
          numParts,
          secondStart,
          thirdStart,
          numSlots,
          yRowStride: y.width,
        });
        return y;
      },
    };
  }

  projection(place: ProjectionPlace): ProjectionAdapter | undefined {
    return this.#adapters.get(placeKey(place));
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
    for (const { scales, modules: parts } of this.#slots.values())
      writeAt(scales, slot * parts.length, new Float64Array(parts.length));
    for (const { place, modules: placed } of adapter.places) {
      const a = adapter.parameters.get(lowRankA(place));
      for (const module of placed) {
        const { rank, rankStart, numInputs, numOutputs, outputStart, scale } = module;
        const entry = this.#slots.get(placeKey(place));
        const part = entry?.modules.findIndex(({ path }) => path === module.path) ?? -1;
        if (entry === undefined || part < 0)
          throw new ConfigError("adapter", `expected a module of the model, got ${module.path}`);
        const index = slot * entry.modules.length + part;
        using rows = a.rows(rankStart, rankStart + rank);
        const low = new Float64Array(this.maxRank * numInputs);
        low.set(rows.toArray());
        writeAt(entry.a, index * low.length, low);
        const factors = adapter.parameters.get(lowRankB(module)).toArray();
        const high = new Float64Array(numOutputs * this.maxRank);
        for (let j = 0; j < numOutputs; j++)
          high.set(factors.subarray(j * rank, (j + 1) * rank), j * this.maxRank);
        writeAt(entry.b, (slot * entry.b.shape[1] + outputStart) * this.maxRank, high);
        writeAt(entry.scales, index, [scale]);
      }
    }
  }

  dispose(): void {
    for (const { a, b, scales } of this.#slots.values())
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
