/**
 * All operators of the CUDA backend, merged from the families of launch/, and the dtypes that they take. (matmul and lowRankBackward may be cuBLASLt's,
 * see matmul.ts.)
 */
import type { Dtype } from "../../base/index.ts";
import type { OpName } from "../ops.ts";
import type { CudaKernels } from "./launcher.ts";
import { activationKernels } from "./launch/activation.ts";
import { adapterKernels } from "./launch/adapter.ts";
import { attentionKernels } from "./launch/attention.ts";
import { cacheWriteKernels } from "./launch/cacheWrite.ts";
import { elementwiseKernels } from "./launch/elementwise.ts";
import { embeddingKernels } from "./launch/embedding.ts";
import { lossKernels } from "./launch/loss.ts";
import { normKernels } from "./launch/norm.ts";
import { optimizerKernels } from "./launch/optimizer.ts";
import { pagedAttentionKernels } from "./launch/pagedAttention.ts";
import { quantiseKernels } from "./launch/quantise.ts";
import { rowAdapterKernels } from "./launch/rowAdapter.ts";
import { reduceKernels } from "./launch/reduce.ts";
import { rotaryKernels } from "./launch/rotary.ts";
import { logitsKernels } from "./launch/logits.ts";
import { samplingKernels } from "./launch/sampling.ts";
import { supportsMatmul } from "./matmul.ts";

export const cudaKernels: CudaKernels = {
  ...elementwiseKernels,
  ...reduceKernels,
  ...embeddingKernels,
  ...quantiseKernels,
  ...rowAdapterKernels,
  ...normKernels,
  ...rotaryKernels,
  ...attentionKernels,
  ...cacheWriteKernels,
  ...pagedAttentionKernels,
  ...activationKernels,
  ...lossKernels,
  ...adapterKernels,
  ...samplingKernels,
  ...logitsKernels,
  ...optimizerKernels,
};

type DtypeRule = (dtypes: Readonly<Partial<Record<string, Dtype>>>) => boolean;

/** What operators take beyond f32 and bf16 beside whole numbers. */
const dtypeRules: { readonly [Name in OpName]?: DtypeRule } = {
  fill: () => true,
  convert: ({ x, y }) => [x, y].every((dtype) => dtype === undefined || /^(bf16|f16|f32|f64)$/.test(dtype)),
  matmul: supportsMatmul,
  lowRankBackward: ({ dy, low = dy, b = dy, dlow = dy, db }) =>
    low === dy &&
    b === dy &&
    supportsMatmul({ a: dy, b, c: dlow }) &&
    dlow === dy &&
    supportsMatmul({ a: dy, c: db ?? dy }),
};

/** f64 is for accumulators only. */
const usual: ReadonlySet<Dtype> = new Set(["f32", "bf16", "f64", "i32", "i64", "u8"]);

/** Whether the kernel of `name` takes tensors of these dtypes. */
export function supportsDtypes(name: OpName, dtypes: Readonly<Partial<Record<string, Dtype>>>): boolean {
  const rule = dtypeRules[name];
  if (rule !== undefined) return rule(dtypes);
  return Object.values(dtypes).every((dtype) => dtype === undefined || usual.has(dtype));
}
