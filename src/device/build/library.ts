/**
 * Compiles a set of C++ files into one shared library, or finds it in the cache: objects are keyed by their own text, the headers
 * they include, the flags and the compiler, so that a change compiles only the files it touches.
 */
import { readdirSync, readFileSync, rmSync } from "node:fs";
import { availableParallelism } from "node:os";
import { basename, join } from "node:path";
import { DeviceError, makeFolder, writeText } from "../../base/index.ts";
import { isIntact, publish, removeUnused, sha256, temporaryName, touch, withLock } from "./cache.ts";
import { runProcess, type Compiler } from "./compiler.ts";

export interface LibraryRecipe {
  readonly compiler: Compiler;
  /** Name of the library within the cache, such as "cpu-avx2". */
  readonly name: string;
  /** Folder whose `.cpp` files are compiled and whose `.h` files they include. */
  readonly sourceFolder: string;
  /** Headers made by program, by name. */
  readonly generatedHeaders: Readonly<Record<string, string>>;
  readonly flags: readonly string[];
  readonly cacheFolder: string;
  /** Called when something must be compiled, with the number of files. */
  readonly onCompile?: (numFiles: number) => void;
}

interface Source {
  readonly path: string;
  readonly objectPath: string;
}

/** "nodelete": worker threads run the library's code until the process is gone, so that it must not be unmapped when Node ends. */
const linkFlags = [
  "-shared",
  "-fPIC",
  "-pthread",
  process.platform === "darwin" ? "-Wl,-undefined,dynamic_lookup" : "-Wl,-z,nodelete",
];

/** The path of the library, compiled where the cache lacks it. Throws DeviceError, FileError. */
export async function buildLibrary(recipe: LibraryRecipe): Promise<string> {
  const sources = listSources(recipe);
  const key = sha256(...sources.map((source) => source.objectPath), ...linkFlags).slice(0, 24);
  const path = join(recipe.cacheFolder, `${recipe.name}-${key}.so`);
  if (isIntact(path)) {
    touch(path);
    return path;
  }
  makeFolder("cpu", join(recipe.cacheFolder, "objects"));
  await withLock(`${path}.lock`, async () => {
    if (isIntact(path)) return;
    await compileAndLink(recipe, sources, path);
    removeUnused(recipe.cacheFolder);
    removeUnused(join(recipe.cacheFolder, "objects"));
  });
  return path;
}

function listSources(recipe: LibraryRecipe): Source[] {
  const texts = new Map<string, string>(Object.entries(recipe.generatedHeaders));
  const names = readdirSync(recipe.sourceFolder).sort();
  for (const name of names) {
    if (/\.(cpp|h)$/.test(name)) texts.set(name, readFileSync(join(recipe.sourceFolder, name), "utf8"));
  }
  const common = [recipe.compiler.command, recipe.compiler.version, ...recipe.flags];
  return names
    .filter((name) => name.endsWith(".cpp"))
    .map((name) => {
      const included = [...closure(name, texts)].sort();
      const key = sha256(...common, ...included.flatMap((file) => [file, texts.get(file) ?? ""]));
      const objectPath = join(
        recipe.cacheFolder,
        "objects",
        `${basename(name, ".cpp")}-${key.slice(0, 24)}.o`,
      );
      return { path: join(recipe.sourceFolder, name), objectPath };
    });
}

/** `name` and the files of ours that it includes, directly or not. */
function closure(
  name: string,
  texts: ReadonlyMap<string, string>,
  seen = new Set<string>(),
): ReadonlySet<string> {
  const text = texts.get(name);
  if (text === undefined || seen.has(name)) return seen;
  seen.add(name);
  for (const match of text.matchAll(/^[ \t]*#[ \t]*include[ \t]*"([^"]+)"/gm)) closure(match[1], texts, seen);
  return seen;
}

async function compileAndLink(
  recipe: LibraryRecipe,
  sources: readonly Source[],
  path: string,
): Promise<void> {
  const stale = sources.filter((source) => !isIntact(source.objectPath));
  recipe.onCompile?.(stale.length);
  const includeFolder = join(
    recipe.cacheFolder,
    "headers",
    sha256(...Object.entries(recipe.generatedHeaders).flat()).slice(0, 24),
  );
  for (const [name, text] of Object.entries(recipe.generatedHeaders)) {
    writeText("cpu", join(includeFolder, name), text);
  }
  const queue = [...stale];
  const worker = async (): Promise<void> => {
    for (let source = queue.shift(); source !== undefined; source = queue.shift()) {
      const temporary = temporaryName(source.objectPath);
      const include = ["-I", includeFolder, "-I", recipe.sourceFolder];
      await compile(recipe, [...recipe.flags, "-fPIC", ...include, "-c", source.path, "-o", temporary]);
      publish(temporary, source.objectPath);
    }
  };
  const numJobs = Math.max(1, Math.min(availableParallelism(), stale.length));
  // All settle before the first failure is told: no compiler outlives the call.
  const outcomes = await Promise.allSettled(Array.from({ length: numJobs }, worker));
  for (const outcome of outcomes) if (outcome.status === "rejected") throw outcome.reason;
  const temporary = temporaryName(path);
  await compile(recipe, [...sources.map((source) => source.objectPath), ...linkFlags, "-o", temporary]);
  publish(temporary, path);
}

async function compile(recipe: LibraryRecipe, parameters: readonly string[]): Promise<void> {
  const { command, version } = recipe.compiler;
  const result = await runProcess(command, parameters);
  if (result !== undefined && result.exitCode === 0) return;
  const output = result?.output ?? "nothing";
  const log = join(recipe.cacheFolder, `${recipe.name}.log`);
  writeText("cpu", log, `${command} ${parameters.join(" ")}\n${output}`);
  rmSync(parameters[parameters.length - 1], { force: true });
  const firstError = output.split("\n").find((line) => /error|undefined|cannot|not found/i.test(line));
  throw new DeviceError(
    "cpu",
    `expected the kernels to compile with ${version}, got: ${(firstError ?? output.split("\n")[0]).trim()}`,
    {
      hint: `the whole output is in ${log}; NAUTILUS_CXX names another compiler`,
      fields: { output },
    },
  );
}
