/**
 * GPT-2's tensors as Hugging Face has them, and as the other families would: one matrix of rows per projection, under the names that
 * huggingFace.ts maps to Megatron's. GPT-2's own linear layers are Conv1D modules, which store the transpose, and keep query, key and value in
 * one (transformers, models/gpt2/modeling_gpt2.py).
 */
import { joinBoxes } from "../box.ts";
import { storedByteLength, storedDtypeBytes, tensorTable } from "../source.ts";
import type { StoredTensor, TensorSource } from "../source.ts";
import { transposedTensor } from "../transpose.ts";
import { throughTo } from "./canonical.ts";

/** Of the tensors outside the layers: GPT-2's name and that of the rows. */
const outer: readonly (readonly [string, string])[] = [
  ["transformer.wte.weight", "model.embed_tokens.weight"],
  ["transformer.wpe.weight", "model.embed_positions.weight"],
  ["transformer.ln_f.weight", "model.norm.weight"],
  ["transformer.ln_f.bias", "model.norm.bias"],
  ["lm_head.weight", "lm_head.weight"],
];
/** Within a layer, norms and linear layers, with the rows that one of GPT-2's is made of. */
const norms: readonly (readonly [string, string])[] = [
  ["ln_1", "input_layernorm"],
  ["ln_2", "post_attention_layernorm"],
];
const linears: readonly (readonly [string, readonly string[]])[] = [
  ["attn.c_attn", ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]],
  ["attn.c_proj", ["self_attn.o_proj"]],
  ["mlp.c_fc", ["mlp.up_proj"]],
  ["mlp.c_proj", ["mlp.down_proj"]],
];

/** What is turned at the moment: one matrix of a source at a time. */
const nothingHeld = (): { of: StoredTensor | undefined; bytes: Uint8Array } => ({
  of: undefined,
  bytes: new Uint8Array(),
});

/** A source of rows as GPT-2 has them. Disposing the view disposes the source. Throws CheckpointError. */
export function gpt2View(rows: TensorSource, numLayers: number): TensorSource {
  const held = nothingHeld();
  const table = new Map<string, StoredTensor>();
  const take = (theirs: string, ours: string): void => {
    table.set(theirs, throughTo(rows, ours));
  };
  for (const [theirs, ours] of outer) if (rows.has(ours)) take(theirs, ours);
  for (let layer = 0; layer < numLayers; layer++) {
    const [theirs, ours] = [`transformer.h.${layer}`, `model.layers.${layer}`];
    for (const kind of ["weight", "bias"]) {
      for (const [norm, name] of norms) take(`${theirs}.${norm}.${kind}`, `${ours}.${name}.${kind}`);
      for (const [linear, names] of linears) {
        const stacked = stackRows(names.map((name) => throughTo(rows, `${ours}.${name}.${kind}`)));
        const tensor = kind === "weight" ? transposedTensor(stacked, held) : stacked;
        table.set(`${theirs}.${linear}.${kind}`, tensor);
      }
    }
  }
  return tensorTable(rows.path, table, { metadata: rows.metadata, release: () => rows.dispose() });
}

/** GPT-2's tensors as rows, the inverse of `gpt2View`. Throws CheckpointError. */
export function gpt2Rows(gpt2: TensorSource, numLayers: number): TensorSource {
  const held = nothingHeld();
  const table = new Map<string, StoredTensor>();
  for (const [theirs, ours] of outer) if (gpt2.has(theirs)) table.set(ours, throughTo(gpt2, theirs));
  for (let layer = 0; layer < numLayers; layer++) {
    const [theirs, ours] = [`transformer.h.${layer}`, `model.layers.${layer}`];
    for (const kind of ["weight", "bias"]) {
      for (const [norm, name] of norms)
        table.set(`${ours}.${name}.${kind}`, throughTo(gpt2, `${theirs}.${norm}.${kind}`));
      for (const [linear, names] of linears) {
        const stored = throughTo(gpt2, `${theirs}.${linear}.${kind}`);
        const stacked = kind === "weight" ? transposedTensor(stored, held) : stored;
        for (const [i, rows] of cutRows(stacked, names.length).entries())
          table.set(`${ours}.${names[i]}.${kind}`, rows);
      }
    }
  }
  return tensorTable(gpt2.path, table, { metadata: gpt2.metadata, release: () => gpt2.dispose() });
}

/** Tensors of one shape on top of each other. */
function stackRows(tensors: readonly StoredTensor[]): StoredTensor {
  const [{ dtype, shape }] = tensors;
  if (tensors.length === 1) return tensors[0];
  const [numRows, ...rest] = shape;
  const whole = [tensors.length, ...shape];
  const parts = tensors.map(({ readRange }, i) => ({
    box: { start: whole.map((_, axis) => (axis === 0 ? i : 0)), shape: [1, ...shape] },
    readRange,
  }));
  return {
    dtype,
    shape: [tensors.length * numRows, ...rest],
    byteLength: storedByteLength(dtype, whole),
    readRange: joinBoxes(whole, storedDtypeBytes[dtype], parts),
  };
}

/** The inverse of `stackRows`. */
function cutRows(
  { dtype, shape: [numRows, ...rest], readRange }: StoredTensor,
  count: number,
): StoredTensor[] {
  const shape = [numRows / count, ...rest];
  const byteLength = storedByteLength(dtype, shape);
  return Array.from({ length: count }, (_, part) => ({
    dtype,
    shape,
    byteLength,
    readRange: (into: Uint8Array, byteOffset: number): void =>
      readRange(into, part * byteLength + byteOffset),
  }));
}
