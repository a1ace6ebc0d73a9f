/** Compile-and-cache: what is built, when it is built again, and what the user reads when it cannot be. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { DeviceError, FileError } from "../../src/base/index.ts";
import { buildLibrary, findCompiler, type LibraryRecipe } from "../../src/device/build/index.ts";
import { openLibrary } from "../../src/device/ffi.ts";

let folder: string;
let numCompiled: number[];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "nautilus-build-"));
  numCompiled = [];
  writeFileSync(
    join(folder, "one.cpp"),
    '#include "shared.h"\nextern "C" int one() { return SHARED + 1; }\n',
  );
  writeFileSync(join(folder, "two.cpp"), 'extern "C" int two() { return 2; }\n');
  writeFileSync(join(folder, "shared.h"), '#include "generated.h"\n#define SHARED GENERATED\n');
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

async function recipe(changes: Partial<LibraryRecipe> = {}): Promise<LibraryRecipe> {
  return {
    compiler: await findCompiler(),
    name: "sample",
    sourceFolder: folder,
    generatedHeaders: { "generated.h": "#define GENERATED 0\n" },
    flags: ["-O1"],
    cacheFolder: join(folder, "cache"),
    onCompile: (count) => numCompiled.push(count),
    ...changes,
  };
}

const call = (path: string, name: string): number => openLibrary(path).define(name, "int32", [])();

it("compiles once, and afterwards only the files that a change touches", async () => {
  const path = await buildLibrary(await recipe());
  expect([call(path, "one"), call(path, "two")]).toEqual([1, 2]);
  expect(await buildLibrary(await recipe())).toBe(path);
  expect(numCompiled).toEqual([2]);
  const changed = await buildLibrary(
    await recipe({ generatedHeaders: { "generated.h": "#define GENERATED 10\n" } }),
  );
  expect([call(changed, "one"), call(changed, "two")]).toEqual([11, 2]);
  expect(numCompiled).toEqual([2, 1]);
  await buildLibrary(await recipe({ flags: ["-O0"] }));
  expect(numCompiled).toEqual([2, 1, 2]);
});

it("builds a damaged library again, and damaged objects too", async () => {
  const path = await buildLibrary(await recipe());
  truncateSync(path, 1000);
  expect(await buildLibrary(await recipe())).toBe(path);
  expect(numCompiled).toEqual([2, 0]);
  expect(call(path, "two")).toBe(2);
  rmSync(path);
  const objects = join(folder, "cache", "objects");
  for (const name of readdirSync(objects)) if (name.endsWith(".o")) truncateSync(join(objects, name), 100);
  await buildLibrary(await recipe());
  expect(numCompiled).toEqual([2, 0, 2]);
});

it("takes over the lock of a process that died", async () => {
  const path = await buildLibrary(await recipe());
  rmSync(path);
  const { pid } = spawnSync(process.execPath, ["--version"]);
  writeFileSync(`${path}.lock`, `${hostname()} ${pid}`);
  expect(await buildLibrary(await recipe())).toBe(path);
});

it("serves several builders at the same time", async () => {
  const paths = await Promise.all(Array.from({ length: 4 }, async () => buildLibrary(await recipe())));
  expect(new Set(paths).size).toBe(1);
  expect(numCompiled).toEqual([2]);
  expect(call(paths[0], "one")).toBe(1);
  const left = readdirSync(join(folder, "cache")).filter((name) => /lock|part/.test(name));
  expect(left).toEqual([]);
});

it("tells the compiler's first error and where the whole of it is", async () => {
  writeFileSync(join(folder, "two.cpp"), "int two() { return missing; }\n");
  const failure = buildLibrary(await recipe());
  await expect(failure).rejects.toThrow(DeviceError);
  await expect(failure).rejects.toThrow(
    /expected the kernels to compile with .*two\.cpp.*missing.*sample\.log/s,
  );
});

it("names a cache folder that cannot be written", async () => {
  writeFileSync(join(folder, "file"), "");
  const failure = buildLibrary(await recipe({ cacheFolder: join(folder, "file", "cache") }));
  await expect(failure).rejects.toThrow(FileError);
  await expect(failure).rejects.toThrow(/expected a writable folder at .*file/);
});
