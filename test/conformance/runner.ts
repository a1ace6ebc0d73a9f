/**
 * Runs conformance cases on a device and against the reference. A case passes when every result is as its check allows, inputs,
 * guards and gaps between rows are bit for bit as before, a second run inside a captured graph gives the same bits, and the
 * device's live bytes are what they were.
 */
import { messageOf } from "../../src/base/index.ts";
import type { Device, OpName } from "../../src/device/index.ts";
import { ops, type OpSpec } from "../../src/device/index.ts";
import { dtypesOf, operandsOf, type AnyProblem, type ConformanceCase, type Operand } from "./case.ts";
import { judge } from "./compare.ts";
import { evaluate } from "./evaluate.ts";
import { gapOf } from "./gaps.ts";
import { Placement, rowsOf, surroundingsOf, valuesOf } from "./memory.ts";

export interface CaseResult {
  readonly op: OpName;
  readonly label: string;
  readonly status: "passed" | "failed" | "skipped";
  /** Why it failed or was skipped. */
  readonly message: string;
  /** Largest error as a share of what is allowed. */
  readonly worst: number;
}

/** Runs one case on `device`. Never throws. */
export function runCase(device: Device, conformanceCase: ConformanceCase): CaseResult {
  const { op, label } = conformanceCase;
  try {
    const problem = conformanceCase.build();
    const missing = missingSupport(device, conformanceCase, problem);
    if (missing !== undefined) return { op, label, worst: 0, ...missing };
    const liveBytes = device.memory().liveBytes;
    const { worst, messages } = compareWithReference(device, op, problem);
    const left = device.memory().liveBytes - liveBytes;
    if (left !== 0) messages.push(`${left} bytes more are live than before`);
    const status = messages.length === 0 ? "passed" : "failed";
    return { op, label, status, message: messages.join("; "), worst };
  } catch (error) {
    return { op, label, status: "failed", message: messageOf(error), worst: Infinity };
  }
}

/** What is told of a case that the device does not support, or that a stale gap says it does not; undefined for one to run. */
export function missingSupport(
  device: Device,
  { op, label }: Pick<ConformanceCase, "op" | "label">,
  problem: AnyProblem,
): Pick<CaseResult, "status" | "message"> | undefined {
  const gap = gapOf(device.kind, { op, label });
  const isSupported = device.supports(op, dtypesOf(problem));
  if (gap?.isWithinOp === true) return { status: "skipped", message: gap.reason };
  if (gap === undefined && !isSupported) {
    return { status: "failed", message: `expected support for ${describeDtypes(problem)}, got none` };
  }
  if (gap === undefined) return undefined;
  if (isSupported) return { status: "failed", message: "supported by now: take it out of gaps.ts" };
  return { status: "skipped", message: gap.reason };
}

function describeDtypes(problem: AnyProblem): string {
  return Object.entries(dtypesOf(problem))
    .map(([name, dtype]) => `${name} ${dtype}`)
    .join(", ");
}

function compareWithReference(
  device: Device,
  op: OpName,
  problem: AnyProblem,
): { worst: number; messages: string[] } {
  const spec: OpSpec = ops[op];
  const isResult = (name: string): boolean => !spec.tensors[name].startsWith("read");
  const expected = evaluate(op, problem);
  using placement = new Placement(device, problem, { sharing: true });
  device.run(op, placement.arguments());

  let worst = 0;
  const messages: string[] = [];
  const operands = operandsOf(problem);
  const overwritten = new Set(operands.flatMap(([name, { sameAs }]) => (isResult(name) ? [sameAs] : [])));
  const results: [string, Operand, Uint8Array][] = [];
  for (const [name, operand] of operands) {
    if (overwritten.has(name)) continue;
    const after = placement.contents(name);
    const before = placement.initial.get(placement.ownerOf(name)) ?? after;
    if (firstDifference(surroundingsOf(before, operand), surroundingsOf(after, operand)) !== -1) {
      messages.push(`${name}: memory around it was written`);
    }
    if (!isResult(name)) {
      if (firstDifference(before, after) !== -1) messages.push(`${name}: an input was written`);
      continue;
    }
    results.push([name, operand, after]);
    const judgement = judge(operand, valuesOf(after, operand), expected.get(name) ?? new Float64Array(0));
    worst = Math.max(worst, judgement.worst);
    if (judgement.message !== undefined) messages.push(`${name}: ${judgement.message}`);
  }
  messages.push(...replayDifferences(device, op, { placement, results }));
  return { worst, messages };
}

/** The problem run again, recorded and replayed: any difference to `results`. */
function replayDifferences(
  device: Device,
  op: OpName,
  { placement, results }: { placement: Placement; results: readonly [string, Operand, Uint8Array][] },
): string[] {
  placement.restore();
  const args = placement.arguments();
  using graph = device.capture(() => device.run(op, args));
  const recordedEarly = results.filter(([name]) => {
    const initial = placement.initial.get(placement.ownerOf(name));
    return initial !== undefined && firstDifference(initial, placement.contents(name)) !== -1;
  });
  if (recordedEarly.length > 0) return ["recording a graph ran it"];
  graph.replay();
  return results.flatMap(([name, operand, first]) => {
    const second = placement.contents(name);
    const index = firstDifference(rowsOf(first, operand), rowsOf(second, operand));
    return index === -1 ? [] : [`${name}: byte ${index} differs when replayed from a graph`];
  });
}

/** Index of the first byte that differs, or -1. */
function firstDifference(a: Uint8Array, b: Uint8Array): number {
  if (Buffer.compare(a, b) === 0) return -1;
  return a.findIndex((byte, i) => byte !== b[i]);
}
