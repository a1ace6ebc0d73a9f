/** Tensors as a table of 80 columns. */
import { formatBytes } from "../../../base/index.ts";
import type { TensorDescription } from "./describe.ts";

const columns = 80;

/** Tensors that are alike in every layer, as one. */
interface TensorGroup extends TensorDescription {
  layers: number[];
}

function grouped(tensors: readonly TensorDescription[]): TensorGroup[] {
  const groups = new Map<string, TensorGroup>();
  for (const tensor of tensors) {
    const [, before, layer, after] = /^(.*?\.)(\d+)(\..*)$/.exec(tensor.name) ?? [];
    const name = layer === undefined ? tensor.name : `${before}*${after}`;
    const key = `${name} ${tensor.dtype} ${tensor.shape.join()}`;
    const group = groups.get(key);
    if (group === undefined)
      groups.set(key, { ...tensor, name, layers: layer === undefined ? [] : [Number(layer)] });
    else {
      group.bytes += tensor.bytes;
      group.layers.push(Number(layer));
    }
  }
  return [...groups.values()];
}

/** One line a tensor, and one for those that are alike in every layer unless `listsAll`. */
export function tensorTable(tensors: readonly TensorDescription[], listsAll: boolean): string[] {
  const groups = listsAll ? tensors.map((tensor) => ({ ...tensor, layers: [] })) : grouped(tensors);
  const cells = groups.map(({ name, dtype, shape, bytes, layers }) => ({
    name: layers.length === 1 ? name.replace("*", String(layers[0])) : name,
    times: layers.length > 1 ? `${layers.length} x` : "",
    dtype,
    shape: shape.length === 0 ? "scalar" : shape.join(" x "),
    size: formatBytes(bytes),
  }));
  const widest = (key: "times" | "dtype" | "shape" | "size"): number =>
    Math.max(key.length, ...cells.map((cell) => cell[key].length));
  const [times, dtype, shape, size] = (["times", "dtype", "shape", "size"] as const).map(widest);
  const nameWidth = Math.max(12, columns - 2 - times - dtype - shape - size - 4 * 2);
  const line = (cell: { name: string; times: string; dtype: string; shape: string; size: string }): string =>
    `  ${[
      shortened(cell.name, nameWidth).padEnd(nameWidth),
      cell.times.padStart(times),
      cell.dtype.padEnd(dtype),
      cell.shape.padEnd(shape),
      cell.size.padStart(size),
    ].join("  ")}`;
  return [
    line({ name: "tensor", times: "", dtype: "dtype", shape: "shape", size: "size" }),
    ...cells.map(line),
  ];
}

/** A long name without its middle. */
function shortened(name: string, width: number): string {
  if (name.length <= width) return name;
  const tail = Math.ceil((width - 1) * 0.6);
  return `${name.slice(0, width - 1 - tail)}…${name.slice(-tail)}`;
}
