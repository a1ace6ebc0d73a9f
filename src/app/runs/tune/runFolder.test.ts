import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { removeRun } from "./runFolder.ts";

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "nautilus-run-"));
  mkdirSync(join(folder, "project", "run"), { recursive: true });
  writeFileSync(join(folder, "project", "run", "metrics.jsonl"), "");
  vi.spyOn(process, "cwd").mockReturnValue(join(folder, "project"));
});

afterEach(() => {
  vi.restoreAllMocks();
  rmSync(folder, { recursive: true, force: true });
});

describe("removeRun", () => {
  it("takes away a run and nothing beside it", () => {
    removeRun(join(folder, "project", "run"));
    expect(existsSync(join(folder, "project", "run"))).toBe(false);
    expect(existsSync(join(folder, "project"))).toBe(true);
  });

  it("leaves the working folder and those above it", () => {
    for (const run of [join(folder, "project"), folder]) {
      expect(() => removeRun(run)).toThrow("[tune] expected a run's own folder to replace");
      expect(existsSync(join(folder, "project", "run", "metrics.jsonl"))).toBe(true);
    }
  });
});
