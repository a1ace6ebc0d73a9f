/** Launches of kernels that make codes of rows, a block for each row: in registers where rows are whole packs of 16 bytes, else of any width. */
import type { TensorArgument } from "../../contract.ts";
import {
  addressOf,
  floatDtype,
  perFloat,
  structure,
  type KernelReference,
  type LaunchContext,
} from "../launcher.ts";
import type { OpName } from "../../ops.ts";
import { allowsPacks, ceilDiv, overlapping, packSize, wholeWarps } from "./grid.ts";

type Variants = Readonly<Record<"f32" | "bf16", KernelReference>>;

export interface RowFamily {
  readonly op: OpName;
  /** By packs of a thread, rising. */
  readonly packs: readonly (readonly [count: number, variants: Variants])[];
  readonly any: Variants;
}

/** Threads of a row: the most, and those of the kernel of any width. */
const mostThreads = 512;
const anyThreads = 256;

export function rowFamily(op: OpName, file: string, prefix: string): RowFamily {
  return {
    op,
    packs: [1, 2, 4].map((count) => [count, perFloat(file, `${prefix}_packs_${count}`)] as const),
    any: perFloat(file, `${prefix}_any`),
  };
}

interface Rows {
  readonly x: TensorArgument;
  readonly codes: TensorArgument;
  readonly scales: TensorArgument;
  readonly numRows: number;
  readonly width: number;
  /** In elements. */
  readonly xRowStride: number;
}

/** Queues codes and scales of rows; `rest` are the kernel's own whole numbers. Throws DisposedError, DtypeError. */
export function launchRowCodes(
  context: LaunchContext,
  family: RowFamily,
  { x, codes, scales, numRows, width, xRowStride }: Rows,
  rest: readonly number[] = [],
): void {
  const dtype = floatDtype(family.op, x);
  const blockOf = (packs: number): number => wholeWarps(ceilDiv(width / packSize(x), packs));
  const usesPacks = width > 0 && allowsPacks([x], [width, xRowStride]) && addressOf(codes) % 8 === 0;
  const found = usesPacks ? family.packs.find(([count]) => blockOf(count) <= mostThreads) : undefined;
  const block = found === undefined ? anyThreads : blockOf(found[0]);
  const words = new BigInt64Array(4 + ceilDiv(1 + rest.length, 2));
  words.set([addressOf(x), addressOf(codes), addressOf(scales), xRowStride].map(BigInt));
  new Int32Array(words.buffer, 32).set([width, ...rest]);
  const variants = found === undefined ? family.any : found[1];
  context.launch(variants[dtype], overlapping(context, { grid: numRows, block }), [
    structure(new Uint8Array(words.buffer), 8),
  ]);
}
