/**
 * Builds cuDNN operation graphs: tensors of four dimensions, the operations between them in order, and from all of that the first
 * execution plan that the library's heuristics offer and that it can make. Knows tensors and operations; nothing of attention.
 * Invariant: a plan owns every descriptor that it was built from until it is disposed.
 * Source: cudnn_graph.h of cuDNN 9.
 */
import { DeviceError, messageOf } from "../../../base/index.ts";
import { NativeWords } from "../native.ts";
import type { Attribute, Cudnn, DescriptorType } from "./library.ts";

/** cudnnDataType_t */
const dataTypes = { f32: 0, i32: 4, bf16: 9, i64: 10, boolean: 11 } as const;
/** cudnnPointwiseMode_t */
const pointwiseModes = {
  add: 0,
  multiply: 1,
  divide: 6,
  subtract: 9,
  exp: 13,
  log: 15,
  identity: 21,
  greaterOrEqual: 303,
  lessThan: 304,
  and: 400,
  index: 501,
  select: 601,
} as const;
/** cudnnReduceTensorOp_t */
const reductionOperators = { sum: 0, maximum: 3 } as const;
/** CUDNN_HEUR_MODE_A */
const heuristicModeA = 3;
const mostEngineConfigs = 16;
/** Bytes at which every tensor in memory must start. */
export const tensorAlignmentBytes = 16;

export type Four = readonly [number, number, number, number];
export type GraphType = keyof typeof dataTypes;

/** A tensor of a graph. One without an owner in memory is an intermediate that the plan keeps on chip. */
export interface GraphTensor {
  readonly id: number;
  readonly descriptor: number;
  readonly dimensions: Four;
  readonly strides: Four;
  readonly type: GraphType;
}

export interface TensorShape {
  readonly dimensions: Four;
  readonly strides: Four;
  readonly type: GraphType;
  /** Where each sequence starts, in elements: a tensor (sequences + 1, 1, 1, 1). */
  readonly raggedOffset?: GraphTensor | undefined;
}

/** Products over fewer rows, columns or inner elements than the tensors have: one length per sequence. */
export interface MatmulLengths {
  readonly rows?: GraphTensor | undefined;
  readonly columns?: GraphTensor | undefined;
  readonly inner?: GraphTensor | undefined;
}

/** Strides of densely packed rows. */
export function denseStrides([, b, c, d]: Four): Four {
  return [b * c * d, c * d, d, 1];
}

export class GraphBuilder {
  readonly library: Cudnn;
  readonly #descriptors: number[] = [];
  readonly #operations: number[] = [];
  readonly #values: { id: number; memory: NativeWords }[] = [];
  #numTensors = 0;

  constructor(library: Cudnn) {
    this.library = library;
  }

  /** A tensor in device memory; its address is given at each run. */
  tensor(shape: TensorShape): GraphTensor {
    return this.#tensor(shape, "memory");
  }

  /** An intermediate. */
  virtual(shape: TensorShape): GraphTensor {
    return this.#tensor(shape, "virtual");
  }

  /** A constant. */
  constant(value: number): GraphTensor {
    const tensor = this.#tensor({ dimensions: [1, 1, 1, 1], strides: [1, 1, 1, 1], type: "f32" }, "value");
    const memory = new NativeWords(1);
    memory.f32[0] = value;
    this.#values.push({ id: tensor.id, memory });
    return tensor;
  }

  /** y = mode(x), or mode(x, b), or for `select` t ? x : b. `y` defaults to an f32 intermediate of the shape of x. */
  pointwise(
    mode: keyof typeof pointwiseModes,
    x: GraphTensor,
    options: {
      b?: GraphTensor;
      t?: GraphTensor;
      /** Dimension that `index` counts. */
      axis?: number;
      precision?: GraphType;
      y?: GraphTensor;
      type?: GraphType;
    } = {},
  ): GraphTensor {
    const { b, t, axis, precision = "f32", type = "f32" } = options;
    const y = options.y ?? this.virtual({ dimensions: x.dimensions, strides: x.strides, type });
    const kind = this.#make("pointwise", {
      pointwiseMode: [pointwiseModes[mode]],
      pointwisePrecision: [dataTypes[precision]],
      ...(axis === undefined ? {} : { pointwiseAxis: [axis] }),
    });
    this.#operate("operationPointwise", {
      operationPointwise: [kind],
      operationPointwiseX: [x.descriptor],
      ...(b === undefined ? {} : { operationPointwiseB: [b.descriptor] }),
      ...(t === undefined ? {} : { operationPointwiseT: [t.descriptor] }),
      operationPointwiseY: [y.descriptor],
    });
    return y;
  }

  /** c = a b over the last two dimensions, accumulated in f32. */
  matmul(a: GraphTensor, b: GraphTensor, c: GraphTensor, lengths: MatmulLengths = {}): GraphTensor {
    const { rows, columns, inner } = lengths;
    const kind = this.#make("matmul", { matmulPrecision: [dataTypes.f32] });
    this.#operate("operationMatmul", {
      operationMatmulA: [a.descriptor],
      operationMatmulB: [b.descriptor],
      operationMatmulC: [c.descriptor],
      operationMatmul: [kind],
      ...(rows === undefined ? {} : { operationMatmulRows: [rows.descriptor] }),
      ...(columns === undefined ? {} : { operationMatmulColumns: [columns.descriptor] }),
      ...(inner === undefined ? {} : { operationMatmulInner: [inner.descriptor] }),
    });
    return c;
  }

  /** y = x reduced along the dimensions in which y is shorter. */
  reduce(operator: keyof typeof reductionOperators, x: GraphTensor, y: GraphTensor): GraphTensor {
    const kind = this.#make("reduction", {
      reductionOperator: [reductionOperators[operator]],
      reductionPrecision: [dataTypes.f32],
    });
    this.#operate("operationReduction", {
      operationReductionX: [x.descriptor],
      operationReductionY: [y.descriptor],
      operationReduction: [kind],
    });
    return y;
  }

  /** x with its last two dimensions exchanged. */
  transpose(x: GraphTensor, shape: { type: GraphType; raggedOffset?: GraphTensor | undefined }): GraphTensor {
    const [b, h, m, n] = x.dimensions;
    const [strideB, strideH, strideM, strideN] = x.strides;
    const y = this.virtual({
      dimensions: [b, h, n, m],
      strides: [strideB, strideH, strideN, strideM],
      ...shape,
    });
    this.#operate("operationReshape", {
      operationReshapeX: [x.descriptor],
      operationReshapeY: [y.descriptor],
    });
    return y;
  }

  /** The best plan for the operations so far. Throws DeviceError where the library has none. */
  build(): Plan {
    const { library } = this;
    try {
      const graph = this.#make("operationGraph", {
        graphOperations: this.#operations,
        ...(library.handle === 0 ? {} : { graphHandle: [library.handle] }),
      });
      const heuristics = this.#make("engineHeuristics", {
        heuristicsGraph: [graph],
        heuristicsMode: [heuristicModeA],
      });
      const configs: number[] = [];
      for (let index = 0; index < mostEngineConfigs; index++) configs.push(this.#create("engineConfig"));
      const numConfigs = library.getDescriptors(heuristics, "heuristicsResults", configs);
      const plan = this.#firstPlan(configs.slice(0, numConfigs));
      return new Plan(library, plan, { descriptors: this.#descriptors, values: this.#values });
    } catch (error) {
      this.dispose();
      throw error;
    }
  }

  /** Gives up a graph that was not built. Never throws. */
  dispose(): void {
    for (const descriptor of this.#descriptors.splice(0).reverse()) this.library.destroy(descriptor);
  }

  #firstPlan(configs: readonly number[]): number {
    const refusals: string[] = [];
    for (const config of configs) {
      try {
        return this.#make("executionPlan", {
          planHandle: [this.library.handle],
          planEngineConfig: [config],
        });
      } catch (error) {
        refusals.push(messageOf(error));
      }
    }
    throw new DeviceError(
      "cuda",
      `expected a plan of cuDNN, got ${refusals[0] ?? "no engine for the graph"}`,
    );
  }

  #tensor(
    { dimensions, strides, type, raggedOffset }: TensorShape,
    kind: "memory" | "virtual" | "value",
  ): GraphTensor {
    const id = ++this.#numTensors;
    const descriptor = this.#make("tensor", {
      tensorDataType: [dataTypes[type]],
      tensorDimensions: dimensions,
      tensorStrides: strides,
      tensorId: [id],
      tensorAlignment: [tensorAlignmentBytes],
      ...(kind === "virtual" ? { tensorIsVirtual: [1] } : {}),
      ...(kind === "value" ? { tensorIsByValue: [1] } : {}),
      ...(raggedOffset === undefined ? {} : { tensorRaggedOffset: [raggedOffset.descriptor] }),
    });
    return { id, descriptor, dimensions, strides, type };
  }

  #operate(type: DescriptorType, values: Readonly<Partial<Record<Attribute, readonly number[]>>>): void {
    this.#operations.push(this.#make(type, values));
  }

  #create(type: DescriptorType): number {
    const descriptor = this.library.create(type);
    this.#descriptors.push(descriptor);
    return descriptor;
  }

  #make(type: DescriptorType, values: Readonly<Partial<Record<Attribute, readonly number[]>>>): number {
    const descriptor = this.#create(type);
    for (const [attribute, list] of Object.entries(values))
      this.library.set(descriptor, attribute as Attribute, list);
    this.library.finalize(descriptor, type);
    return descriptor;
  }
}

/** An execution plan with all that it was built from. */
export class Plan {
  readonly workspaceBytes: number;
  readonly #library: Cudnn;
  readonly #plan: number;
  readonly #descriptors: readonly number[];
  readonly #values: readonly { id: number; memory: NativeWords }[];

  constructor(
    library: Cudnn,
    plan: number,
    parts: { descriptors: readonly number[]; values: readonly { id: number; memory: NativeWords }[] },
  ) {
    this.#library = library;
    this.#plan = plan;
    this.#descriptors = parts.descriptors;
    this.#values = parts.values;
    this.workspaceBytes = library.getInteger(plan, "planWorkspaceBytes");
  }

  /** Queues the plan: addresses of the tensors in memory by id, and of `workspaceBytes` of scratch. */
  run(ids: readonly number[], addresses: readonly number[], workspace: number): void {
    const library = this.#library;
    const values = this.#values;
    const pack = library.create("variantPack");
    try {
      library.set(pack, "packPointers", [...addresses, ...values.map(({ memory }) => memory.address)]);
      library.set(pack, "packIds", [...ids, ...values.map(({ id }) => id)]);
      library.set(pack, "packWorkspace", [workspace]);
      library.finalize(pack, "variantPack");
      library.execute(this.#plan, pack);
    } finally {
      library.destroy(pack);
    }
  }

  /** Never throws. */
  dispose(): void {
    for (const descriptor of [...this.#descriptors].reverse()) this.#library.destroy(descriptor);
  }
}
