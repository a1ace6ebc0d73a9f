import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { libraryCandidates, libraryFolders, openCudaLibrary } from "./libraries.ts";

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "libraries-"));
});
afterEach(() => {
  rmSync(root, { recursive: true });
});

function file(path: string): string {
  const full = join(root, path);
  mkdirSync(dirname(full), { recursive: true });
  writeFileSync(full, "");
  return full;
}

describe("the search for CUDA's libraries", () => {
  it("prefers named folders, then the loader, then the toolkit, then wheels", () => {
    const named = file("named/libcublasLt.so.13");
    const toolkit = file("cuda/lib64/libcublasLt.so.13");
    const wheel = file("venv/lib/python3.12/site-packages/nvidia/cu13/lib/libcublasLt.so.13");
    const found = libraryCandidates("libcublasLt.so.13", {
      NAUTILUS_CUDA_LIBS: `${join(root, "absent")}:${join(root, "named")}`,
      CUDA_HOME: join(root, "cuda"),
      VIRTUAL_ENV: join(root, "venv"),
      HOME: root,
    });
    expect(found.slice(0, 3)).toEqual([named, "libcublasLt.so.13", toolkit]);
    expect(found).toContain(wheel);
  });

  it("finds the wheels of CUDA 12 and of an interpreter on PATH, also behind a link", () => {
    const cudnn = file("python/lib/python3.11/site-packages/nvidia/cudnn/lib/libcudnn.so.9");
    const nvrtc = file("python/lib/python3.11/dist-packages/nvidia/cuda_nvrtc/lib/libnvrtc.so.12");
    file("python/bin/python3");
    mkdirSync(join(root, "links"));
    symlinkSync(join(root, "python/bin/python3"), join(root, "links/python3"));
    for (const path of [join(root, "python/bin"), join(root, "links")]) {
      expect(libraryCandidates("libcudnn.so.9", { PATH: path })).toContain(cudnn);
      expect(libraryCandidates("libnvrtc.so.12", { PATH: path })).toContain(nvrtc);
    }
  });

  it("names only folders that exist, each once", () => {
    file("cuda/lib64/x");
    const folders = libraryFolders({ CUDA_HOME: join(root, "cuda"), CUDA_PATH: join(root, "cuda") });
    expect(folders.filter((folder) => folder.startsWith(root))).toEqual([join(root, "cuda/lib64")]);
    expect(new Set(folders).size).toBe(folders.length);
  });

  it("says which library is missing, what for, and which package brings it", () => {
    expect(() => openCudaLibrary("cublasLt", [99])).toThrow(
      /^\[cuda\] expected libcublasLt\.so\.99 \(matrix products\), got .*\(apt: libcublas-99-0 .* NAUTILUS_CUDA_LIBS\)$/,
    );
  });

  it("says when a library was found but cannot be loaded", () => {
    const broken = file("broken/libnvrtc.so.98");
    process.env["NAUTILUS_CUDA_LIBS"] = join(root, "broken");
    try {
      expect(() => openCudaLibrary("nvrtc", [98])).toThrow(broken);
    } finally {
      delete process.env["NAUTILUS_CUDA_LIBS"];
    }
  });
});
