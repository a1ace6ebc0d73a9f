/**
 * Writes docs/ops.md: the operators of src/device/ops.ts, and which backend has them with which dtypes. Support is what the conformance
 * suite holds the backends to: its cases less its declared gaps. Run it after a change of either; a test compares the file.
 *
 *   node scripts/generate-ops-doc.ts
 */
import { join } from "node:path";
import { writeText, type Dtype } from "../src/base/index.ts";
import { opNames, ops, type DeviceKind, type OpName, type OpSpec } from "../src/device/index.ts";
import { tableDtypes } from "../src/device/dtypes.ts";
import { dtypesOf, type ConformanceCase } from "../test/conformance/case.ts";
import { allCases } from "../test/conformance/cases/index.ts";
import { gapOf } from "../test/conformance/gaps.ts";

export const opsDocument = join(import.meta.dirname, "..", "docs", "ops.md");

const backends: readonly DeviceKind[] = ["reference", "cpu", "cuda"];

type DtypeMap = Readonly<Record<string, Dtype>>;

/** The dtypes of a case that the table leaves open. */
function openDtypes(op: OpName, conformanceCase: ConformanceCase): DtypeMap {
  const entries = Object.entries(dtypesOf(conformanceCase.build()));
  return Object.fromEntries(entries.filter(([tensor]) => tableDtypes(op, tensor).length > 1));
}

/** Whether `a` says nothing that `b` does not say too: optional tensors left out. */
function isPartOf(a: DtypeMap, b: DtypeMap): boolean {
  return Object.entries(a).every(([tensor, dtype]) => b[tensor] === dtype);
}

/** "bf16", or "bf16 with c f32" where tensors differ from the first. */
function describeDtypes(dtypes: DtypeMap): string {
  const tensorsOf = new Map<Dtype, string[]>();
  for (const [tensor, dtype] of Object.entries(dtypes)) {
    tensorsOf.set(dtype, [...(tensorsOf.get(dtype) ?? []), tensor]);
  }
  const [first, ...rest] = tensorsOf;
  if (first === undefined) return "fixed";
  const others = rest.map(([dtype, tensors]) => `${tensors.join(", ")} ${dtype}`);
  return others.length === 0 ? first[0] : `${first[0]} with ${others.join(" and ")}`;
}

/** Every combination of dtypes that the cases of an operator ask for. */
function combinationsOf(op: OpName, cases: readonly ConformanceCase[]): string[] {
  const all = cases.map((candidate) => openDtypes(op, candidate));
  const largest = all.filter(
    (dtypes) => !all.some((other) => isPartOf(dtypes, other) && !isPartOf(other, dtypes)),
  );
  return [...new Set(largest.map(describeDtypes))];
}

/** "yes", "no", or what is missing of it, for a backend. */
function supportOf(kind: DeviceKind, cases: readonly ConformanceCase[]): string {
  const gaps = cases.map((candidate) => gapOf(kind, candidate)?.reason);
  const reasons = [...new Set(gaps)].filter((reason) => reason !== undefined);
  if (reasons.length === 0) return "yes";
  return `${gaps.includes(undefined) ? "partly" : "no"}: ${reasons.join("; ")}`;
}

function tensorList(op: OpName): string {
  const spec: OpSpec = ops[op];
  const rows = Object.entries(spec.tensors).map(([tensor, access]) => {
    const use = access.endsWith("?") ? `${access.slice(0, -1)}, optional` : access;
    return `- \`${tensor}\`: ${use}; ${tableDtypes(op, tensor).join(", ")}`;
  });
  return rows.join("\n");
}

function section(op: OpName): string {
  const spec: OpSpec = ops[op];
  const numbers = [
    ...(spec.integers.length === 0
      ? []
      : [`Integers: ${spec.integers.map((name) => `\`${name}\``).join(", ")}.`]),
    ...(spec.floats.length === 0 ? [] : [`Floats: ${spec.floats.map((name) => `\`${name}\``).join(", ")}.`]),
  ];
  return [`### ${op}`, spec.summary, tensorList(op), numbers.join(" ")]
    .filter((part) => part !== "")
    .join("\n\n");
}

/** The whole page. */
export function renderOpsDocument(): string {
  const cases = allCases();
  const rows = opNames.map((op) => {
    const own = cases.filter((candidate) => candidate.op === op);
    const support = backends.map((kind) => supportOf(kind, own));
    return `| [${op}](#${op.toLowerCase()}) | ${combinationsOf(op, own).join("; ")} | ${support.join(" | ")} |`;
  });
  return `# Operators

Written by \`node scripts/generate-ops-doc.ts\` from \`src/device/ops.ts\`, \`src/device/dtypes.ts\` and the conformance suite; not by hand.

Tensors are row-major and contiguous unless a row stride, in elements, says otherwise. Arithmetic is at least float32, and a result
is rounded once, to nearest even, when it is stored. \`read\` tensors are never written, \`write\` tensors are assigned whatever they
held, \`update\` tensors are read and written.

## Support

The dtypes are those that every backend must take where the table leaves a choice: \`test/conformance\` runs each of them against the
reference. The reference also takes f16 and f64 wherever f32 is named.

| operator | dtypes | ${backends.join(" | ")} |
| --- | --- | ${backends.map(() => "---").join(" | ")} |
${rows.join("\n")}

## Definitions

${opNames.map(section).join("\n\n")}
`;
}

if (import.meta.main) writeText("docs", opsDocument, renderOpsDocument());
