/** The shape of the reference's kernels: one for every row of the operator table, so that a missing one does not compile. */
import type { OpArguments } from "../contract.ts";
import type { OpName } from "../ops.ts";

export type ReferenceKernels = { readonly [Name in OpName]: (args: OpArguments<Name>) => void };
