/**
 * The C header of the operator table, `nt_ops.h`: argument structs, entry points, indices. Written at compile time, so that
 * the C++ side cannot disagree with the table.
 *
 * A command's slots are 64-bit words: two per tensor (address, dtype code), then the integers, then the floats as doubles, in
 * table order. A struct of 8-byte fields therefore lies over them.
 */
import { opNames, ops, type OpSpec } from "../ops.ts";

/** `layerNormForward` as `layer_norm_forward`. */
export function snakeCase(name: string): string {
  return name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

function argumentStruct(name: string, spec: OpSpec): string {
  const fields = [
    ...Object.entries(spec.tensors).map(
      ([tensor, access]) => `nt_tensor ${snakeCase(tensor)}; /* ${access} */`,
    ),
    ...spec.integers.map((integer) => `int64_t ${snakeCase(integer)};`),
    ...spec.floats.map((float) => `double ${snakeCase(float)};`),
  ];
  return `struct nt_${snakeCase(name)}_args {\n${fields.map((field) => `  ${field}\n`).join("")}};`;
}

/** The text of nt_ops.h; it expects `nt_tensor` to be declared. */
export function generateHeader(): string {
  const names = opNames.map(snakeCase);
  return [
    "/* Generated from the operator table. */",
    "#pragma once",
    "#ifdef NT_WEAK_OPS",
    "#define NT_ENTRY_ATTRIBUTE __attribute__((weak))",
    "#else",
    "#define NT_ENTRY_ATTRIBUTE",
    "#endif",
    ...opNames.map((name) => argumentStruct(name, ops[name])),
    ...names.map((name) => `extern "C" int32_t nt_${name}(const int64_t* slots) NT_ENTRY_ATTRIBUTE;`),
    `#define NT_FOR_EACH_OP(X) ${names.map((name) => `X(${name})`).join(" ")}`,
    `enum { ${names.map((name, index) => `NT_OP_INDEX_${name} = ${index}`).join(", ")}, NT_NUM_OPS = ${names.length} };`,
    "",
  ].join("\n");
}
