/**
 * Tensors as raw bytes, the form of the binary-tensor-data extension and of gRPC's raw contents: little-endian, row-major; an
 * element of BYTES is its length as uint32 and then its bytes; a BOOL is one byte.
 * Source: Triton, "Binary Tensor Data Extension".
 */
import { RequestError } from "../../base/index.ts";
import { type Datatype, numericDataFrom, numericDatatypes } from "./datatypes.ts";
import { type Tensor, component, countElements } from "./tensor.ts";

interface RawTensor {
  name: string;
  datatype: Datatype;
  shape: readonly number[];
  bytes: Uint8Array;
}

/** Throws RequestError when the bytes are not exactly what shape and datatype promise. */
export function decodeRaw({ name, datatype, shape, bytes }: RawTensor): Tensor {
  const count = countElements(name, shape);
  if (datatype === "BYTES") return { name, datatype, shape, data: decodeByteStrings(name, count, bytes) };
  const expected = count * numericDatatypes[datatype].bytes;
  if (bytes.length !== expected) {
    throw new RequestError(
      component,
      `'${name}': expected ${expected} bytes for ${datatype} [${shape.join(", ")}], got ${bytes.length}`,
    );
  }
  return { name, datatype, shape, data: numericDataFrom(datatype, bytes) };
}

function decodeByteStrings(name: string, count: number, bytes: Uint8Array): Uint8Array[] {
  // Each element takes its length at least: a shape that promises more is refused before anything is made for it.
  if (count * 4 > bytes.length) throw tooFew(name, count, bytes.length);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const elements: Uint8Array[] = [];
  let offset = 0;
  for (let index = 0; index < count; index++) {
    if (offset + 4 > bytes.length) throw tooFew(name, count, bytes.length);
    const length = view.getUint32(offset, true);
    offset += 4;
    if (length > bytes.length - offset) {
      throw new RequestError(
        component,
        `'${name}': expected ${length} bytes in element ${index}, got ${bytes.length - offset}`,
        { hint: "each element is its length as little-endian uint32, then its bytes" },
      );
    }
    elements.push(bytes.subarray(offset, offset + length));
    offset += length;
  }
  if (offset !== bytes.length) {
    throw new RequestError(
      component,
      `'${name}': expected ${count} elements in ${offset} bytes, got ${bytes.length} bytes`,
    );
  }
  return elements;
}

function tooFew(name: string, count: number, length: number): RequestError {
  return new RequestError(component, `'${name}': expected ${count} elements, got ${length} bytes in all`, {
    hint: "each element is its length as little-endian uint32, then its bytes",
  });
}

export function encodeRaw(tensor: Tensor): Uint8Array {
  if (tensor.datatype !== "BYTES") {
    const { buffer, byteOffset, byteLength } = tensor.data;
    return new Uint8Array(buffer, byteOffset, byteLength);
  }
  const size = tensor.data.reduce((total, element) => total + 4 + element.length, 0);
  const bytes = new Uint8Array(size);
  const view = new DataView(bytes.buffer);
  let offset = 0;
  for (const element of tensor.data) {
    view.setUint32(offset, element.length, true);
    bytes.set(element, offset + 4);
    offset += 4 + element.length;
  }
  return bytes;
}
