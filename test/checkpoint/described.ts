/** Tensors of a source in the words of the fixture scripts: torch's dtype names, shapes, bytes in hexadecimal. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { StoredDtype, TensorSource } from "../../src/checkpoint/index.ts";

export interface Described {
  dtype: string;
  shape: number[];
  hex: string;
}

export const torchNames: Readonly<Record<StoredDtype, string>> = {
  f64: "float64",
  f32: "float32",
  bf16: "bfloat16",
  f16: "float16",
  i64: "int64",
  i32: "int32",
  i16: "int16",
  i8: "int8",
  u64: "uint64",
  u32: "uint32",
  u16: "uint16",
  u8: "uint8",
  bool: "bool",
  f8e4m3: "float8_e4m3fn",
  f8e5m2: "float8_e5m2",
};

export function described(source: TensorSource): Record<string, Described> {
  return Object.fromEntries(
    [...source.names()].map((name) => {
      const { dtype, shape } = source.info(name);
      return [
        name,
        { dtype: torchNames[dtype], shape: [...shape], hex: Buffer.from(source.read(name)).toString("hex") },
      ];
    }),
  );
}

/** The path of a fixture of this part. */
export function checkpointFixture(name: string): string {
  return fileURLToPath(new URL(`../fixtures/checkpoint/${name}`, import.meta.url));
}

/** What a fixture script says its tensors are. */
export function expectedTensors(name: string): Record<string, Described> {
  return JSON.parse(readFileSync(checkpointFixture(name), "utf8")) as Record<string, Described>;
}
