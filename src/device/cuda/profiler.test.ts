import { expect, it } from "vitest";
import { formatProfile } from "./profiler.ts";

it("lists operators by time, with rates, and what is left as idle", () => {
  const totals = new Map([
    ["add", { count: 10, gpuMs: 1, hostMs: 0.1, flops: 0 }],
    ["matmul", { count: 4, gpuMs: 8, hostMs: 0.02, flops: 8e12 * 0.7 }],
  ]);
  const lines = formatProfile({ wallMs: 10, busyMs: 9, totals }).split("\n");
  expect(lines).toHaveLength(5);
  expect(lines[1].split(/\s+/)).toEqual(["matmul", "4", "8.00", "80.0", "%", "2000.0", "700.0", "5.0"]);
  expect(lines[2].split(/\s+/).slice(0, 3)).toEqual(["add", "10", "1.00"]);
  expect(lines[3].split(/\s+/).slice(0, 4)).toEqual(["idle", "1.00", "10.0", "%"]);
});
