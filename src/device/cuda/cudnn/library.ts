/**
 * cuDNN 9's backend API: typed bindings, one handle, and descriptors as numbers. Attributes are set from and read into one scratch
 * block. Knows descriptors and attributes; nothing of attention.
 * Source: cudnn_graph.h of cuDNN 9 (cudnnBackendCreateDescriptor and its kin; the numbers of the enumerations).
 */
import { DeviceError, invariant } from "../../../base/index.ts";
import { openCudaLibrary } from "../libraries.ts";
import { bindFunctions, NativeWords, type Functions } from "../native.ts";

const table = {
  cudnnCreate: ["pointer"],
  cudnnDestroy: ["pointer"],
  cudnnSetStream: ["pointer", "pointer"],
  cudnnBackendCreateDescriptor: ["int", "pointer"],
  cudnnBackendDestroyDescriptor: ["pointer"],
  cudnnBackendFinalize: ["pointer"],
  cudnnBackendSetAttribute: ["pointer", "int", "int", "int64", "pointer"],
  cudnnBackendGetAttribute: ["pointer", "int", "int", "int64", "pointer", "pointer"],
  cudnnBackendExecute: ["pointer", "pointer", "pointer"],
} as const;

type CudnnFunctions = Functions<typeof table>;
/** Symbols and argument types, for the test that compares them with the header. */
export const cudnnTable = table;

/** cudnnBackendDescriptorType_t */
export const descriptorTypes = {
  pointwise: 0,
  engineConfig: 3,
  engineHeuristics: 4,
  executionPlan: 5,
  operationPointwise: 13,
  operationGraph: 15,
  variantPack: 16,
  tensor: 17,
  matmul: 18,
  operationMatmul: 19,
  reduction: 21,
  operationReduction: 22,
  operationReshape: 31,
} as const;

/** cudnnBackendAttributeType_t, and the bytes of one value. */
const attributeTypes = {
  handle: [0, 8],
  dataType: [1, 4],
  boolean: [2, 1],
  int64: [3, 8],
  pointer: [6, 8],
  heuristicMode: [8, 4],
  pointwiseMode: [14, 4],
  descriptor: [15, 8],
  reductionOperator: [18, 4],
} as const;

/** cudnnBackendAttributeName_t, as far as it is used, each with its type. */
export const attributes = {
  pointwiseMode: [0, "pointwiseMode"],
  pointwisePrecision: [1, "dataType"],
  pointwiseAxis: [9, "int64"],
  heuristicsMode: [200, "heuristicMode"],
  heuristicsGraph: [201, "descriptor"],
  heuristicsResults: [202, "descriptor"],
  planHandle: [400, "handle"],
  planEngineConfig: [401, "descriptor"],
  planWorkspaceBytes: [402, "int64"],
  operationPointwise: [750, "descriptor"],
  operationPointwiseX: [751, "descriptor"],
  operationPointwiseB: [752, "descriptor"],
  operationPointwiseY: [753, "descriptor"],
  operationPointwiseT: [758, "descriptor"],
  graphHandle: [800, "handle"],
  graphOperations: [801, "descriptor"],
  tensorAlignment: [900, "int64"],
  tensorDataType: [901, "dataType"],
  tensorDimensions: [902, "int64"],
  tensorStrides: [903, "int64"],
  tensorId: [906, "int64"],
  tensorIsVirtual: [907, "boolean"],
  tensorIsByValue: [908, "boolean"],
  tensorRaggedOffset: [913, "descriptor"],
  packIds: [1000, "int64"],
  packPointers: [1001, "pointer"],
  packWorkspace: [1003, "pointer"],
  matmulPrecision: [1500, "dataType"],
  operationMatmulA: [1520, "descriptor"],
  operationMatmulB: [1521, "descriptor"],
  operationMatmulC: [1522, "descriptor"],
  operationMatmul: [1523, "descriptor"],
  operationMatmulRows: [1525, "descriptor"],
  operationMatmulColumns: [1526, "descriptor"],
  operationMatmulInner: [1527, "descriptor"],
  reductionOperator: [1600, "reductionOperator"],
  reductionPrecision: [1601, "dataType"],
  operationReductionX: [1610, "descriptor"],
  operationReductionY: [1611, "descriptor"],
  operationReduction: [1612, "descriptor"],
  operationReshapeX: [2200, "descriptor"],
  operationReshapeY: [2201, "descriptor"],
} as const satisfies Readonly<Record<string, readonly [number, keyof typeof attributeTypes]>>;

export type Attribute = keyof typeof attributes;
export type DescriptorType = keyof typeof descriptorTypes;

const mostValues = 64;

export class Cudnn {
  /** 91002 is 9.10.2. */
  readonly version: number;
  readonly path: string;
  readonly #functions: CudnnFunctions;
  readonly #lastError: (text: number, length: number) => number;
  readonly #scratch = new NativeWords(mostValues);
  readonly #out = new NativeWords(1);
  #handle = 0;

  /** Loads the library. Throws DeviceError where it is missing. */
  constructor(majors: readonly number[]) {
    const { native, path } = openCudaLibrary("cudnn", majors);
    this.path = path;
    this.#functions = bindFunctions(native, table, "cuDNN 9 or later will do");
    this.version = native.define("cudnnGetVersion", "uint64", [])();
    this.#lastError = native.define("cudnnGetLastErrorString", "void", ["address", "uint64"]);
  }

  /** Makes the handle, in the current context, for work in `stream`. Throws DeviceError. */
  start(stream: number): void {
    this.#check("cudnnCreate", this.#functions.cudnnCreate(this.#out.address));
    this.#handle = this.#out.word(0);
    this.#check("cudnnSetStream", this.#functions.cudnnSetStream(this.#handle, stream));
  }

  get handle(): number {
    return this.#handle;
  }

  create(type: DescriptorType): number {
    const status = this.#functions.cudnnBackendCreateDescriptor(descriptorTypes[type], this.#out.address);
    this.#check(`creating a descriptor of ${type}`, status);
    return this.#out.word(0);
  }

  /** Sets an attribute of a descriptor that is not finalized. */
  set(descriptor: number, attribute: Attribute, values: readonly number[]): void {
    const [name, typeName] = attributes[attribute];
    const [type, valueBytes] = attributeTypes[typeName];
    const scratch = this.#scratch;
    invariant(values.length <= mostValues, `${values.length} values of ${attribute}`);
    for (let index = 0; index < values.length; index++) {
      if (valueBytes === 8) scratch.setWord(index, values[index]);
      else if (valueBytes === 4) scratch.i32[index] = values[index];
      else scratch.bytes[index] = values[index];
    }
    const status = this.#functions.cudnnBackendSetAttribute(
      descriptor,
      name,
      type,
      values.length,
      scratch.address,
    );
    if (status !== 0) this.#check(`setting ${attribute} to ${values.join(", ")}`, status);
  }

  finalize(descriptor: number, what: string): void {
    const status = this.#functions.cudnnBackendFinalize(descriptor);
    if (status !== 0) this.#check(`finalizing ${what}`, status);
  }

  /** A 64-bit integer that a finalized descriptor holds. */
  getInteger(descriptor: number, attribute: Attribute): number {
    const [name, typeName] = attributes[attribute];
    const status = this.#functions.cudnnBackendGetAttribute(
      descriptor,
      name,
      attributeTypes[typeName][0],
      1,
      this.#out.address,
      this.#scratch.address,
    );
    this.#check(`reading ${attribute}`, status);
    return this.#scratch.word(0);
  }

  /** Up to `descriptors.length` descriptors of a list, written into those given; the number written. */
  getDescriptors(descriptor: number, attribute: Attribute, descriptors: readonly number[]): number {
    const [name, typeName] = attributes[attribute];
    descriptors.forEach((value, index) => this.#scratch.setWord(index, value));
    const status = this.#functions.cudnnBackendGetAttribute(
      descriptor,
      name,
      attributeTypes[typeName][0],
      descriptors.length,
      this.#out.address,
      this.#scratch.address,
    );
    this.#check(`reading ${attribute}`, status);
    return Math.min(this.#out.word(0), descriptors.length);
  }

  /** Queues a plan with a finalized variant pack. */
  execute(plan: number, pack: number): void {
    const status = this.#functions.cudnnBackendExecute(this.#handle, plan, pack);
    if (status !== 0) this.#check("executing a plan", status);
  }

  /** Never throws. */
  destroy(descriptor: number): void {
    this.#functions.cudnnBackendDestroyDescriptor(descriptor);
  }

  /** Never throws. */
  dispose(): void {
    if (this.#handle !== 0) this.#functions.cudnnDestroy(this.#handle);
    this.#handle = 0;
  }

  #check(call: string, status: number): void {
    if (status === 0) return;
    const text = new NativeWords(128);
    this.#lastError(text.address, text.byteLength);
    const detail = text.text().replaceAll(/\s+/g, " ").trim();
    throw new DeviceError(
      "cuda",
      `expected cuDNN to succeed at ${call}, got status ${status}${detail === "" ? "" : `: ${detail}`}`,
      { fields: { call, status } },
    );
  }
}
