/**
 * Finds CUDA's shared libraries: the folders of NAUTILUS_CUDA_LIBS, the loader's own path, CUDA_HOME and CUDA_PATH, the usual
 * folders, and the folders of Python wheels. Knows where libraries lie and which package brings each; nothing of what is in
 * them. A missing library is one sentence that names it and its package.
 */
import { existsSync, readdirSync, readFileSync, realpathSync } from "node:fs";
import { homedir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { DeviceError, messageOf } from "../../base/index.ts";
import { openLibrary, type NativeLibrary } from "../ffi.ts";

export type CudaLibraryName = "driver" | "nvrtc" | "cublasLt" | "cudnn" | "nccl";
export const cudaLibraryNames: readonly CudaLibraryName[] = ["driver", "nvrtc", "cublasLt", "cudnn", "nccl"];

interface LibrarySpec {
  /** What it is for, for people. */
  readonly purpose: string;
  /** File names for a major version of CUDA. */
  readonly files: (major: number) => readonly string[];
  /** Which packages bring it. */
  readonly packages: (major: number) => string;
}

const specs: Readonly<Record<CudaLibraryName, LibrarySpec>> = {
  driver: {
    purpose: "the NVIDIA driver",
    files: () => ["libcuda.so.1"],
    packages: () =>
      "install the NVIDIA driver, 525 or later; in a container, start it with the NVIDIA container toolkit ('--gpus all')",
  },
  nvrtc: {
    purpose: "the run-time compiler for GPU kernels",
    files: (major) => [`libnvrtc.so.${major}`],
    packages: (major) =>
      `apt: cuda-nvrtc-${major}-0 of NVIDIA's repository; pip: nvidia-cuda-nvrtc${major < 13 ? `-cu${major}` : ""}`,
  },
  cublasLt: {
    purpose: "matrix products",
    files: (major) => [`libcublasLt.so.${major}`],
    packages: (major) =>
      `apt: libcublas-${major}-0 of NVIDIA's repository; pip: nvidia-cublas${major < 13 ? `-cu${major}` : ""}`,
  },
  cudnn: {
    purpose: "attention",
    files: () => ["libcudnn.so.9"],
    packages: (major) => `apt: libcudnn9-cuda-${major} of NVIDIA's repository; pip: nvidia-cudnn-cu${major}`,
  },
  nccl: {
    purpose: "several GPUs",
    files: () => ["libnccl.so.2"],
    packages: (major) => `apt: libnccl2 of NVIDIA's repository; pip: nvidia-nccl-cu${major}`,
  },
};

/** The major versions of CUDA that the bindings know, newest first. */
export const supportedCudaMajors: readonly number[] = [13, 12];

type Environment = Readonly<Record<string, string | undefined>>;

function subfolders(folder: string, pattern: RegExp): string[] {
  try {
    return readdirSync(folder)
      .filter((name) => pattern.test(name))
      .sort((a, b) => b.localeCompare(a, "en", { numeric: true }))
      .map((name) => join(folder, name));
  } catch {
    return [];
  }
}

const pathList = (value: string | undefined): string[] => (value ?? "").split(delimiter).filter(Boolean);

/** Folders in which Python keeps packages, by the environment's hints and the interpreters on PATH; none is started. */
function pythonPackageFolders(environment: Environment): string[] {
  const prefixes = [environment["VIRTUAL_ENV"], environment["CONDA_PREFIX"]].filter(
    (path) => path !== undefined,
  );
  for (const folder of pathList(environment["PATH"])) {
    const python = join(folder, "python3");
    if (!existsSync(python)) continue;
    prefixes.push(dirname(folder), dirname(dirname(realpathSync(python))));
  }
  prefixes.push(join(environment["HOME"] ?? homedir(), ".local"), "/usr/local", "/usr", "/opt/conda");
  const packages = prefixes.flatMap((prefix) =>
    subfolders(join(prefix, "lib"), /^python3/).flatMap((folder) => [
      join(folder, "site-packages"),
      join(folder, "dist-packages"),
    ]),
  );
  return [...pathList(environment["PYTHONPATH"]), ...packages];
}

/** Folders that may hold CUDA libraries, in the order in which they are tried after NAUTILUS_CUDA_LIBS and the loader path. */
export function libraryFolders(environment: Environment = process.env): string[] {
  const toolkits = [environment["CUDA_HOME"], environment["CUDA_PATH"]]
    .filter((path) => path !== undefined && path !== "")
    .concat("/usr/local/cuda", ...subfolders("/usr/local", /^cuda-/), "/opt/cuda");
  const targets = ["lib64", "lib", "targets/x86_64-linux/lib", "targets/sbsa-linux/lib"];
  const folders = [
    ...toolkits.flatMap((toolkit) => targets.map((target) => join(String(toolkit), target))),
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/local/nvidia/lib64",
    "/usr/local/nvidia/lib",
    "/usr/lib/wsl/lib",
    ...pythonPackageFolders(environment).flatMap((folder) =>
      subfolders(join(folder, "nvidia"), /^[a-z]/).map((wheel) => join(wheel, "lib")),
    ),
  ];
  return [...new Set(folders)].filter((folder) => existsSync(folder));
}

/** Where `file` may be loaded from, best first; a bare name asks the loader. */
export function libraryCandidates(file: string, environment: Environment = process.env): string[] {
  const named = pathList(environment["NAUTILUS_CUDA_LIBS"]).map((folder) => join(folder, file));
  const found = libraryFolders(environment).map((folder) => join(folder, file));
  return [...named.filter((path) => existsSync(path)), file, ...found.filter((path) => existsSync(path))];
}

export interface OpenedLibrary {
  readonly name: CudaLibraryName;
  readonly path: string;
  /** Major version of CUDA in its file name, or the newest that was looked for where the name has none. */
  readonly major: number;
  readonly native: NativeLibrary;
}

const opened: OpenedLibrary[] = [];

/**
 * Loads a library, once per process and version. `majors` are the versions of CUDA that will do, best first.
 * Throws DeviceError that names the library and the package that brings it.
 */
export function openCudaLibrary(
  name: CudaLibraryName,
  majors: readonly number[] = supportedCudaMajors,
): OpenedLibrary {
  const known = opened.find((library) => library.name === name && majors.includes(library.major));
  if (known !== undefined) return known;
  const { files, packages, purpose } = specs[name];
  if (process.platform !== "linux")
    throw new DeviceError("cuda", `expected Linux, got ${process.platform}`, {
      hint: "use the cpu device here",
    });
  const refusals: string[] = [];
  for (const major of majors) {
    for (const file of files(major)) {
      for (const path of libraryCandidates(file)) {
        try {
          const native = openLibrary(path);
          const result = { name, path: loadedPath(path), major, native };
          opened.push(result);
          return result;
        } catch (error) {
          if (path !== file) refusals.push(messageOf(error));
        }
      }
    }
  }
  const wanted = [...new Set(majors.flatMap((major) => files(major)))].join(" or ");
  const tooNew = supportedCudaMajors
    .filter((major) => !majors.includes(major))
    .flatMap((major) =>
      files(major).flatMap((file) => libraryCandidates(file).filter((path) => path !== file)),
    );
  if (tooNew.length > 0) refusals.push(`only ${tooNew[0]}, which needs a newer driver`);
  const got = refusals.length === 0 ? "none in any of the usual folders" : refusals.join("; ");
  throw new DeviceError("cuda", `expected ${wanted} (${purpose}), got ${got}`, {
    hint: `${packages(majors[0] ?? supportedCudaMajors[0])}; or name its folder in NAUTILUS_CUDA_LIBS`,
    fields: { library: name },
  });
}

/** The file behind a library that the loader found by its bare name. */
function loadedPath(path: string): string {
  if (path.includes("/")) return path;
  try {
    const line = readFileSync("/proc/self/maps", "utf8")
      .split("\n")
      .find((entry) => entry.includes(`/${path}`) || entry.includes(`/${path.replace(/\.so.*$/, ".so")}`));
    return line?.slice(line.indexOf("/")) ?? path;
  } catch {
    return path;
  }
}
