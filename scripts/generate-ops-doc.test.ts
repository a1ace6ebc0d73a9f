/** docs/ops.md is what its generator writes today. */
import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { opsDocument, renderOpsDocument } from "./generate-ops-doc.ts";

it("docs/ops.md is current (node scripts/generate-ops-doc.ts)", () => {
  expect(readFileSync(opsDocument, "utf8")).toBe(renderOpsDocument());
});
