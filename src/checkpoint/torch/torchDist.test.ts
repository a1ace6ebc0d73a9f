import { cpSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { checkpointFixture, described, expectedTensors } from "../../../test/checkpoint/described.ts";
import { NautilusError } from "../../base/index.ts";
import { folderTree } from "../fileTree.ts";
import { openTorchDist } from "./torchDist.ts";

const expected = expectedTensors("torch_dist/expected.json");
const weights = checkpointFixture("torch_dist/weights");
const work = mkdtempSync(join(tmpdir(), "nautilus-torch-dist-"));
afterAll(() => rmSync(work, { recursive: true }));

function copied(): string {
  const folder = mkdtempSync(join(work, "copy-"));
  cpSync(weights, folder, { recursive: true });
  return folder;
}

describe("torch_dist", () => {
  it("joins the boxes that two ranks wrote along any axis", () => {
    using source = openTorchDist(folderTree(weights));
    expect(described(source)).toEqual(expected);
  });

  it("reads ranges across boxes", () => {
    using source = openTorchDist(folderTree(weights));
    for (const [name, { hex }] of Object.entries(expected)) {
      const whole = Buffer.from(hex, "hex");
      const part = new Uint8Array(whole.length - 7);
      source.readInto(name, part, 5);
      expect(Buffer.from(part)).toEqual(whole.subarray(5, whole.length - 2));
    }
  });

  it("names a data file that is missing or cut short", () => {
    const name = "module.embedding.word_embeddings.weight";
    const folder = copied();
    truncateSync(join(folder, "__1_0.distcp"), 500);
    using cut = openTorchDist(folderTree(folder));
    expect(() => cut.read(name)).toThrow(/expected \d+ bytes in .*__1_0\.distcp, got 500/);
    rmSync(join(folder, "__1_0.distcp"));
    using missing = openTorchDist(folderTree(folder));
    expect(() => missing.read(name)).toThrow("expected a file '__1_0.distcp'");
  });

  it("survives any damage to its metadata", () => {
    const folder = copied();
    const good = readFileSync(join(folder, ".metadata"));
    fc.assert(
      fc.property(fc.nat(good.byteLength - 1), fc.nat(255), (position, value) => {
        const bytes = Buffer.from(good);
        bytes[position] = value;
        writeFileSync(join(folder, ".metadata"), bytes);
        try {
          using source = openTorchDist(folderTree(folder));
          for (const name of source.names()) source.read(name);
        } catch (error) {
          expect(error).toBeInstanceOf(NautilusError);
        }
      }),
      { numRuns: 300, seed: 3 },
    );
  });
});
