/** Named tensors as they travel, and what is read out of them: texts, numbers, truths. */
import { fromBf16Bits, RequestError } from "../../base/index.ts";
import type { NumericData, NumericDatatype } from "./datatypes.ts";

export const component = "tensor";

/** BYTES: one byte string an element. */
export interface BytesTensor {
  name: string;
  datatype: "BYTES";
  shape: readonly number[];
  data: readonly Uint8Array[];
}

export interface NumericTensor {
  name: string;
  datatype: NumericDatatype;
  shape: readonly number[];
  data: NumericData;
}

/** Row-major; the product of the shape is the number of elements. */
export type Tensor = BytesTensor | NumericTensor;

/** More elements than any request of ours needs; keeps products of dimensions exact. */
const maxElements = 2 ** 31;

/** The number of elements of `shape`. Throws RequestError for dimensions that cannot be. */
export function countElements(name: string, shape: readonly number[]): number {
  let count = 1;
  for (const dimension of shape) {
    if (!Number.isSafeInteger(dimension) || dimension < 0) {
      throw new RequestError(
        component,
        `'${name}': expected a shape of whole numbers from 0 on, got [${shape.join(", ")}]`,
      );
    }
    count *= dimension;
    if (count > maxElements) {
      throw new RequestError(
        component,
        `'${name}': expected at most 2^31 elements, got shape [${shape.join(", ")}]`,
      );
    }
  }
  return count;
}

/** A BYTES tensor of texts as UTF-8. */
export function textTensor(name: string, shape: readonly number[], texts: readonly string[]): BytesTensor {
  const encoder = new TextEncoder();
  return { name, datatype: "BYTES", shape, data: texts.map((text) => encoder.encode(text)) };
}

/** The texts of a BYTES tensor. Throws RequestError for another datatype and for bytes that are not UTF-8. */
export function readTexts(tensor: Tensor): string[] {
  if (tensor.datatype !== "BYTES") throw wrongDatatype(tensor, "BYTES");
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  return tensor.data.map((bytes, index) => {
    try {
      return decoder.decode(bytes);
    } catch (cause) {
      throw new RequestError(
        component,
        `'${tensor.name}': expected UTF-8 in element ${index}, got bytes that are not`,
        { cause },
      );
    }
  });
}

/** The values of a tensor of integers. Throws RequestError for other datatypes and for integers past 2^53. */
export function readIntegers(tensor: Tensor): number[] {
  if (tensor.datatype === "BYTES" || tensor.datatype === "BOOL" || isFloat(tensor.datatype)) {
    throw wrongDatatype(tensor, "an integer datatype");
  }
  return elementsOf(tensor.data).map((value) => {
    const number = Number(value);
    if (!Number.isSafeInteger(number)) {
      throw new RequestError(component, `'${tensor.name}': expected integers below 2^53, got ${value}`);
    }
    return number;
  });
}

/** The values of a tensor of numbers, integers as well. Throws RequestError for other datatypes and for NaN and infinities. */
export function readNumbers(tensor: Tensor): number[] {
  if (tensor.datatype === "BYTES" || tensor.datatype === "BOOL")
    throw wrongDatatype(tensor, "a numeric datatype");
  const isBf16 = tensor.datatype === "BF16";
  return elementsOf(tensor.data).map((value) => {
    const number = isBf16 ? fromBf16Bits(Number(value)) : Number(value);
    if (!Number.isFinite(number)) {
      throw new RequestError(component, `'${tensor.name}': expected finite numbers, got ${number}`);
    }
    return number;
  });
}

/** The values of a tensor of truths. Throws RequestError for other datatypes. */
export function readBooleans(tensor: Tensor): boolean[] {
  if (tensor.datatype !== "BOOL") throw wrongDatatype(tensor, "BOOL");
  return elementsOf(tensor.data).map((value) => value !== 0);
}

/** The elements of a typed array as they are. */
export function elementsOf(data: NumericData): (number | bigint)[] {
  const elements: Iterable<number | bigint> = data;
  return [...elements];
}

export function isFloat(datatype: NumericDatatype): boolean {
  return datatype === "FP16" || datatype === "FP32" || datatype === "FP64" || datatype === "BF16";
}

function wrongDatatype(tensor: Tensor, expected: string): RequestError {
  return new RequestError(component, `'${tensor.name}': expected ${expected}, got ${tensor.datatype}`);
}
