/**
 * Tensors as JSON: `data` is a flat or nested list in row-major order; BYTES elements are strings.
 * Source: KServe, "Open Inference Protocol", Tensor Data.
 */
import { RequestError, fromBf16Bits, toBf16Bits } from "../../base/index.ts";
import { type Datatype, type NumericDatatype, zeros } from "./datatypes.ts";
import { type Tensor, component, countElements, elementsOf, isFloat } from "./tensor.ts";

interface JsonTensor {
  name: string;
  datatype: Datatype;
  shape: readonly number[];
  /** Parsed JSON. */
  data: unknown;
}

/** Throws RequestError when the list is not exactly what shape and datatype promise. */
export function decodeJson({ name, datatype, shape, data }: JsonTensor): Tensor {
  const count = countElements(name, shape);
  const values = flatten(name, shape, data);
  if (values.length !== count) {
    throw new RequestError(
      component,
      `'${name}': expected ${count} elements for shape [${shape.join(", ")}], got ${values.length}`,
    );
  }
  if (datatype === "BYTES") {
    const encoder = new TextEncoder();
    const strings = values.map((value) => {
      if (typeof value !== "string") throw wrongValue(name, "strings", value);
      return encoder.encode(value);
    });
    return { name, datatype, shape, data: strings };
  }
  return { name, datatype, shape, data: numericData(name, datatype, values) };
}

/** Row-major values of a list that is flat or nested as deep as the shape. */
function flatten(name: string, shape: readonly number[], data: unknown): unknown[] {
  if (!Array.isArray(data)) throw wrongValue(name, "a list as 'data'", data);
  let values: unknown[] = data;
  for (let depth = 1; depth < shape.length && values.some(Array.isArray); depth++) {
    const dimension = shape[depth];
    values = values.flatMap((value) => {
      if (!Array.isArray(value) || value.length !== dimension) {
        throw wrongValue(name, `lists of ${dimension} in dimension ${depth}`, value);
      }
      return value;
    });
  }
  return values;
}

function numericData(name: string, datatype: NumericDatatype, values: readonly unknown[]) {
  const data = zeros(datatype, values.length);
  if (data instanceof BigInt64Array || data instanceof BigUint64Array) {
    for (let i = 0; i < values.length; i++) {
      const value = values[i];
      if (typeof value !== "number" || !Number.isSafeInteger(value))
        throw wrongValue(name, "integers below 2^53", value);
      data[i] = BigInt(value);
      if (data[i] !== BigInt(value)) throw wrongValue(name, `integers of ${datatype}`, value);
    }
    return data;
  }
  const isReal = isFloat(datatype);
  for (let i = 0; i < values.length; i++) {
    const value = values[i];
    if (datatype === "BOOL") {
      if (typeof value !== "boolean") throw wrongValue(name, "true or false", value);
      data[i] = value ? 1 : 0;
    } else if (typeof value !== "number") {
      throw wrongValue(name, "numbers", value);
    } else {
      data[i] = datatype === "BF16" ? toBf16Bits(value) : value;
      if (!isReal && data[i] !== value) throw wrongValue(name, `integers of ${datatype}`, value);
    }
  }
  return data;
}

/** `data` of a tensor, flat; numbers that JSON cannot write (NaN, infinities) become null. BYTES that are not UTF-8 lose bytes. */
export function encodeJson(tensor: Tensor): unknown[] {
  if (tensor.datatype === "BYTES") {
    const decoder = new TextDecoder();
    return tensor.data.map((element) => decoder.decode(element));
  }
  switch (tensor.datatype) {
    case "BOOL":
      return elementsOf(tensor.data).map((value) => value !== 0);
    case "BF16":
      return elementsOf(tensor.data).map((value) => fromBf16Bits(Number(value)));
    default:
      return elementsOf(tensor.data).map(Number);
  }
}

function wrongValue(name: string, expected: string, got: unknown): RequestError {
  const text = JSON.stringify(got) ?? "nothing";
  return new RequestError(
    component,
    `'${name}': expected ${expected}, got ${text.length > 60 ? `${text.slice(0, 57)}...` : text}`,
  );
}
