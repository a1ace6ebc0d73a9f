import {
  closeSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inflateSync } from "node:zlib";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { checkpointFixture } from "../../test/checkpoint/described.ts";
import { CheckpointError } from "../base/index.ts";
import { openFileBytes } from "./bytes.ts";
import { readTreeFile } from "./fileTree.ts";
import { readTar } from "./tar.ts";
import { tarMember, writeTar } from "./tarWriter.ts";

const work = mkdtempSync(join(tmpdir(), "nautilus-tar-"));
afterAll(() => rmSync(work, { recursive: true }));

function contents(path: string): Record<string, string> {
  using bytes = openFileBytes(path);
  const tree = readTar(bytes);
  return Object.fromEntries(
    tree.files.map((file) => [file, Buffer.from(readTreeFile(tree, file)).toString("latin1")]),
  );
}

function fileOf(bytes: Uint8Array): string {
  const path = join(work, "file.tar");
  writeFileSync(path, bytes);
  return path;
}

const folder = "model_weights/model.decoder.layers.self_attention.linear_qkv.layer_norm_weight";
const counted = Buffer.from(Array.from({ length: 512 }, (_, i) => i % 256)).toString("latin1");
const plain = {
  "model_config.yaml": "a: 1\n",
  [`${folder}/.zarray`]: "{}",
  [`${folder}/0.0`]: counted,
  [`${folder}/${folder.slice(14, 60)}/1.0`]: "long",
  empty: "",
};
const named = { ...plain, "tokenizer_é.model": "accents", ["x".repeat(300)]: "very long" };

describe("tar", () => {
  it.each([
    ["ustar", plain],
    ["gnu", named],
    ["pax", named],
  ])("reads %s archives of Python's tarfile", (dialect, expected) => {
    expect(contents(checkpointFixture(`tar/${dialect}.tar`))).toEqual(expected);
  });

  const refused = JSON.parse(readFileSync(checkpointFixture("tar/refused.json"), "utf8")) as Record<
    string,
    string
  >;
  it.each(Object.entries(refused))("refuses %s", (message, hex) => {
    const path = fileOf(inflateSync(Buffer.from(hex, "hex")));
    expect(() => contents(path)).toThrow(CheckpointError);
    expect(() => contents(path)).toThrow(`got ${message}`);
  });

  it("survives any damage", () => {
    const good = readFileSync(checkpointFixture("tar/pax.tar"));
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(good.byteLength - 1), fc.nat(255)), { minLength: 1, maxLength: 4 }),
        (changes) => {
          const bytes = Buffer.from(good);
          for (const [position, value] of changes) bytes[position] = value;
          try {
            contents(fileOf(bytes));
          } catch (error) {
            expect(error).toBeInstanceOf(CheckpointError);
          }
        },
      ),
      { numRuns: 200, seed: 6 },
    );
  });

  it("writes what it reads, long and non-ASCII names included", () => {
    const path = join(work, "written.tar");
    const descriptor = openSync(path, "w");
    writeTar(
      descriptor,
      Object.entries(named).map(([name, text]) => tarMember(`./${name}`, Buffer.from(text, "latin1"))),
    );
    closeSync(descriptor);
    expect(contents(path)).toEqual(named);
  });

  it("reads and writes members above 8 GiB", () => {
    const path = join(work, "large.tar");
    const largeBytes = 9 * 2 ** 30;
    const source = openSync(join(work, "header.tar"), "w");
    expect(() => writeTar(source, [{ name: "large", byteLength: largeBytes, pieces: () => [] }])).toThrow(
      "bytes of a tar member",
    );
    closeSync(source);
    // What stands before the content: the pax header, its record, the member's header. The content is a hole in the file.
    const head = readFileSync(join(work, "header.tar"));
    expect(head.byteLength).toBe(3 * 512);
    writeFileSync(path, head);
    const target = openSync(path, "r+");
    writeSync(target, "end", head.byteLength + largeBytes - 3);
    closeSync(target);
    truncateSync(path, head.byteLength + largeBytes + 1024);
    using bytes = openFileBytes(path);
    using member = readTar(bytes).open("large");
    expect(member.byteLength).toBe(largeBytes);
    const tail = new Uint8Array(3);
    member.readInto(tail, largeBytes - 3);
    expect(Buffer.from(tail).toString()).toBe("end");
    rmSync(path);
  });
});
