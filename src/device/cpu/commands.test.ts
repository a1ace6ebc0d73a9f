import { describe, expect, it } from "vitest";
import { dtypes, InvariantError } from "../../base/index.ts";
import type { DeviceBuffer, TensorArgument } from "../contract.ts";
import { opNames } from "../ops.ts";
import { CommandWriter } from "./commands.ts";
import { generateHeader } from "./header.ts";

const buffer = {} as DeviceBuffer;
const tensor = (byteOffset: number, dtype: TensorArgument["dtype"]): TensorArgument => ({
  buffer,
  byteOffset,
  dtype,
});
const addressOf = ({ byteOffset }: TensorArgument): number => 0x7f12_3456_0000 + byteOffset;

/** The 64-bit words of what was written, read back as the C side reads them. */
function slotsOf(writer: CommandWriter): bigint[] {
  return [...new BigInt64Array(writer.bytes.slice().buffer)];
}
const doubleBits = (value: number): bigint => new BigInt64Array(new Float64Array([value]).buffer)[0];

describe("CommandWriter", () => {
  it("lays tensors, integers and floats out in table order", () => {
    const writer = new CommandWriter();
    const args = { numElements: 5, seed: 2 ** 40 + 3, counter: -7, mean: 0.5, std: -0 };
    writer.writeOp("randomNormal", { y: tensor(64, "bf16"), ...args }, addressOf);
    expect(slotsOf(writer)).toEqual([
      BigInt(opNames.indexOf("randomNormal")),
      7n,
      0x7f12_3456_0040n,
      BigInt(dtypes.bf16.code),
      5n,
      2n ** 40n + 3n,
      -7n,
      doubleBits(0.5),
      doubleBits(-0),
    ]);
  });

  it("writes an absent optional tensor as null, and grows", () => {
    const writer = new CommandWriter();
    const product = {
      m: 1,
      n: 1,
      k: 1,
      lda: 1,
      ldb: 1,
      ldc: 1,
      transposeA: 0,
      transposeB: 1,
      alpha: 1,
      beta: 0,
    };
    const operands = { a: tensor(0, "f32"), b: tensor(0, "f32"), c: tensor(0, "f32") };
    for (let count = 0; count < 500; count++)
      writer.writeOp("matmul", { ...operands, ...product }, addressOf);
    const slots = slotsOf(writer);
    expect(writer.names).toHaveLength(500);
    expect(slots).toHaveLength(500 * 20);
    expect(slots.slice(-20, -10)).toEqual(slots.slice(0, 10));
    expect(slots.slice(8, 10)).toEqual([0n, 0n]);
  });

  it("refuses what is missing or no whole number, and keeps nothing of it", () => {
    const writer = new CommandWriter();
    const y = tensor(0, "f32");
    expect(() => writer.writeOp("fill", { numElements: 1, value: 0 }, addressOf)).toThrow(InvariantError);
    expect(() => writer.writeOp("fill", { y, numElements: 1.5, value: 0 }, addressOf)).toThrow(
      "fill needs a whole number 'numElements', got 1.5",
    );
    expect(() => writer.writeOp("fill", { y, numElements: 1 }, addressOf)).toThrow(
      "fill needs a number 'value'",
    );
    expect(writer.bytes).toHaveLength(0);
    expect(writer.names).toHaveLength(0);
  });
});

describe("generateHeader", () => {
  it("declares each operator's arguments in snake case and table order", () => {
    expect(generateHeader()).toContain(
      [
        "struct nt_embedding_forward_args {",
        "  nt_tensor tokens; /* read */",
        "  nt_tensor weight; /* read */",
        "  nt_tensor y; /* write */",
        "  int64_t num_rows;",
        "  int64_t width;",
        "  int64_t vocab_size;",
        "};",
      ].join("\n"),
    );
  });
});
