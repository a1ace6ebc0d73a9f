import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { removeOutputFolder } from "./replaceFolder.ts";

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

describe("removeOutputFolder", () => {
  it("takes away a run and nothing beside it", () => {
    removeOutputFolder("tune", join(folder, "project", "run"));
    expect(existsSync(join(folder, "project", "run"))).toBe(false);
    expect(existsSync(join(folder, "project"))).toBe(true);
  });

  it("leaves the working folder and those above it", () => {
    for (const run of [join(folder, "project"), folder]) {
      expect(() => removeOutputFolder("tune", run)).toThrow(
        "[tune] expected an output folder of its own to replace",
      );
      expect(existsSync(join(folder, "project", "run", "metrics.jsonl"))).toBe(true);
    }
  });
});
