/**
 * The package as its users get it: packed, installed from the tarball into an empty folder, run, imported and type-checked there.
 * Needs the package registry for the dependencies; without one it skips and says so.
 */
import { spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, it } from "vitest";

const root = fileURLToPath(new URL("../../", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "nautilus-package-"));
const installed = join(folder, "node_modules", "nautilus-llm");
afterAll(() => rmSync(folder, { recursive: true }));

interface Outcome {
  status: number | null;
  stdout: string;
  stderr: string;
}

function run(command: string, args: readonly string[], cwd = folder): Outcome {
  return spawnSync(command, args, { cwd, encoding: "utf8", maxBuffer: 1 << 26 });
}

const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
  version: string;
  exports: Record<string, unknown>;
};
const subpaths = Object.keys(manifest.exports).map((name) => name.replace(/^\./, "nautilus-llm"));

let problem: string | undefined;
let packed: string[] = [];
beforeAll(() => {
  // "prepack" builds.
  const pack = run("npm", ["pack", "--json", "--pack-destination", folder], root);
  expect(pack.status, pack.stderr).toBe(0);
  const tarball = readdirSync(folder).find((name) => name.endsWith(".tgz")) ?? "";
  packed = run("tar", ["-tzf", tarball]).stdout.trim().split("\n");
  writeFileSync(join(folder, "package.json"), '{"name":"empty","private":true,"type":"module"}');
  const install = run("npm", ["install", "--no-audit", "--no-fund", "--prefer-offline", `./${tarball}`]);
  if (install.status === 0) return;
  if (!/ENOTFOUND|ECONNREFUSED|EAI_AGAIN|ETIMEDOUT|ENOTCACHED/.test(install.stderr))
    expect.fail(install.stderr);
  problem = "the package registry cannot be reached, and the dependencies are needed";
});

const nautilus = (...args: string[]): Outcome =>
  run(process.execPath, [join(installed, "bin", "nautilus.js"), ...args]);

it("holds what it needs and nothing of the tests", () => {
  const names = packed.map((name) => name.replace(/^package\//, ""));
  for (const wanted of [
    "LICENSE",
    "README.md",
    "CHANGELOG.md",
    "bin/nautilus.js",
    "dist/index.js",
    "dist/index.d.ts",
  ])
    expect(names).toContain(wanted);
  expect(names.filter((name) => /\.test\.|^test\/|^bench\/|node_modules|\.tgz$/.test(name))).toEqual([]);
  for (const kind of [/^dist\/device\/cpu\/kernels\/.*\.cpp$/, /^dist\/device\/cuda\/kernels\/.*\.cu$/])
    expect(
      names.some((name) => kind.test(name)),
      String(kind),
    ).toBe(true);
});

it("runs: npx, doctor", (context) => {
  if (problem !== undefined) return context.skip(problem);
  const help = run("npx", ["--no-install", "nautilus", "--help"]);
  expect(help.stdout).toContain("Usage: nautilus");
  expect(nautilus("--version").stdout.trim()).toBe(manifest.version);
  const doctor = nautilus("doctor");
  expect(doctor.status, doctor.stderr).toBe(0);
  expect(doctor.stdout).toMatch(/compiler/i);
});

it("trains and generates", (context) => {
  if (problem !== undefined) return context.skip(problem);
  mkdirSync(join(folder, "texts"));
  const text = "the sea is deep and the shell is slow. ".repeat(200);
  for (const name of ["a.txt", "b.txt"]) writeFileSync(join(folder, "texts", name), text);
  writeFileSync(join(folder, "recipe.ts"), recipe);
  const trained = nautilus("train", "recipe.ts");
  expect(trained.status, trained.stderr).toBe(0);
  const written = nautilus(
    "generate",
    "--model",
    "run",
    "--prompt",
    "the sea",
    "--max-tokens",
    "8",
    "--device",
    "cpu",
  );
  expect(written.status, written.stderr).toBe(0);
  expect(written.stdout.startsWith("the sea")).toBe(true);
});

const recipe = `
import { defineRecipe } from "nautilus-llm/train";
export default defineRecipe({
  run: "run",
  model: { preset: "nemotron-tiny", width: 32, ffnWidth: 64, numLayers: 2, numHeads: 2, numKvHeads: 2, headDim: 16 },
  tokenizer: { vocabSize: 320, sampleBytes: 100_000 },
  data: { train: [{ source: { kind: "tree", paths: "texts" } }], split: "50,50,0" },
  sequenceLength: 32,
  totalTokens: 512,
  batchTokens: 256,
  microBatchSequences: 4,
  device: "cpu",
});
`;

it("every subpath is imported and has types", (context) => {
  if (problem !== undefined) return context.skip(problem);
  const imports = subpaths.map((name, i) => `import * as part${i} from "${name}";`).join("\n");
  const uses = subpaths.map((_, i) => `part${i}`).join(", ");
  writeFileSync(
    join(folder, "all.mjs"),
    `${imports}\nconsole.log([${uses}].map((part) => Object.keys(part).length > 0).join());\n`,
  );
  const imported = run(process.execPath, ["all.mjs"]);
  expect(imported.stderr).toBe("");
  expect(imported.stdout.trim()).toBe(subpaths.map(() => "true").join());

  writeFileSync(
    join(folder, "typed.ts"),
    `${imports}
import { defineRecipe } from "nautilus-llm/train";
import { pullModel, type PulledModel } from "nautilus-llm/checkpoint";
export const pulled: Promise<PulledModel> = pullModel("org/name", { connections: 2 });
// @ts-expect-error a revision is text
export const wrong = pullModel("org/name", { revision: 5 });
// @ts-expect-error a recipe without data
defineRecipe({ run: "x" });
export const all = [${uses}];
`,
  );
  const options = [
    "--noEmit",
    "--strict",
    "--skipLibCheck",
    "false",
    "--module",
    "nodenext",
    "--target",
    "es2024",
  ];
  const lib = [
    "--lib",
    "es2024,esnext.disposable,esnext.float16,esnext.iterator,esnext.error,dom,dom.iterable",
  ];
  const types = ["--types", "node", "--typeRoots", join(root, "node_modules", "@types")];
  const checked = run(process.execPath, [typescript(), ...options, ...lib, ...types, "typed.ts"]);
  expect(checked.stdout).toBe("");
  expect(checked.status).toBe(0);
});

function typescript(): string {
  const path = join(root, "node_modules", "typescript", "bin", "tsc");
  expect(existsSync(path)).toBe(true);
  return path;
}
