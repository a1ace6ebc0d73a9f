/** The input tensors of one request by name: every read checks datatype, range and number of rows, and says which tensor is wrong. */
import { RequestError, nearest } from "../../../base/index.ts";
import { type Tensor, readBooleans, readIntegers, readNumbers, readTexts } from "../../kserve/index.ts";
import { type InputName, inputNames, isInputName } from "./modelSchema.ts";

const component = "infer";

interface Range {
  min?: number;
  max?: number;
}

export class Inputs {
  readonly #tensors: ReadonlyMap<InputName, Tensor>;

  /** Throws RequestError for a name that no model has, and for one that comes twice. */
  constructor(tensors: readonly Tensor[]) {
    const byName = new Map<InputName, Tensor>();
    for (const tensor of tensors) {
      const { name } = tensor;
      if (!isInputName(name)) {
        const near = nearest(name, inputNames);
        throw new RequestError(component, `expected an input of the model, got '${name.slice(0, 100)}'`, {
          hint: near === undefined ? "GET the model's /config for their names" : `did you mean '${near}'?`,
        });
      }
      if (byName.has(name)) throw new RequestError(component, `'${name}': expected one tensor, got several`);
      byName.set(name, tensor);
    }
    this.#tensors = byName;
  }

  has(name: InputName): boolean {
    return this.#tensors.has(name);
  }

  tensor(name: InputName): Tensor | undefined {
    return this.#tensors.get(name);
  }

  /** All texts of the first of `names` that is there, whatever the shape. */
  texts(...names: InputName[]): string[] {
    const tensor = this.#first(names);
    return tensor === undefined ? [] : readTexts(tensor);
  }

  /** One whole number for each of `numRows` prompts. Throws RequestError outside of the range. */
  integers(names: readonly InputName[], numRows: number, range: Range = {}): (number | undefined)[] {
    return this.#rows(names, numRows, (tensor) => checked(tensor, readIntegers(tensor), range));
  }

  /** One number for each of `numRows` prompts. Throws RequestError outside of the range, and for NaN. */
  numbers(names: readonly InputName[], numRows: number, range: Range = {}): (number | undefined)[] {
    return this.#rows(names, numRows, (tensor) => checked(tensor, readNumbers(tensor), range));
  }

  booleans(names: readonly InputName[], numRows: number): (boolean | undefined)[] {
    return this.#rows(names, numRows, readBooleans);
  }

  #first(names: readonly InputName[]): Tensor | undefined {
    const given = names.filter((name) => this.#tensors.has(name));
    if (given.length > 1) {
      throw new RequestError(
        component,
        `expected one of ${given.join(", ")}, which mean the same, got ${given.length}`,
      );
    }
    return given.length === 0 ? undefined : this.#tensors.get(given[0]);
  }

  /** One value goes for all prompts, N values for N prompts. */
  #rows<Value>(
    names: readonly InputName[],
    numRows: number,
    read: (tensor: Tensor) => readonly Value[],
  ): (Value | undefined)[] {
    const tensor = this.#first(names);
    if (tensor === undefined) return Array.from({ length: numRows }, () => undefined);
    const values = read(tensor);
    if (values.length !== 1 && values.length !== numRows) {
      throw new RequestError(
        component,
        `'${tensor.name}': expected one value, or one for each of ${numRows} prompts, got shape [${tensor.shape.join(", ")}]`,
      );
    }
    return Array.from({ length: numRows }, (_, row) => values[values.length === 1 ? 0 : row]);
  }
}

function checked(
  { name }: Tensor,
  values: readonly number[],
  { min = -Infinity, max = Infinity }: Range,
): readonly number[] {
  for (const value of values) {
    if (value >= min && value <= max) continue;
    const range = max === Infinity ? `at least ${min}` : `${min} to ${max}`;
    throw new RequestError(component, `'${name}': expected ${range}, got ${value}`);
  }
  return values;
}
