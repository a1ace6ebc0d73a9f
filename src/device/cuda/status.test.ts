/** What is said about statuses of CUDA's libraries. */
import { expect, it } from "vitest";
import { DeviceError, OutOfMemoryError } from "../../base/index.ts";
import { driverError, isLostStatus, libraryError } from "./status.ts";

it("tells of a lost card that files are whole, and marks the error", () => {
  for (const status of [46, 214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719]) {
    expect(isLostStatus(status)).toBe(true);
    const error = driverError("cuStreamSynchronize", status, "GPU 0 (NVIDIA H200)");
    expect(error.message).toMatch(
      new RegExp(
        `^\\[cuda\\] expected cuStreamSynchronize to succeed on GPU 0 \\(NVIDIA H200\\), got CUDA_ERROR_[A-Z_]+ \\(${status}\\) \\(.*last checkpoint`,
      ),
    );
    expect(error.fields).toMatchObject({ call: "cuStreamSynchronize", status, isLost: true });
  }
});

it("tells a card that another process holds from one that was lost", () => {
  expect(driverError("cuDevicePrimaryCtxRetain", 46, "GPU 0").message).toMatch(
    /another process holds the GPU/,
  );
  expect(driverError("cuLaunchKernel", 46, "GPU 0").message).not.toMatch(/another process/);
});

it("gives memory an error of its own, and an unknown status its number", () => {
  expect(driverError("cuMemCreate", 2, "GPU 0")).toBeInstanceOf(OutOfMemoryError);
  const unknown = driverError("cuInit", 12_345, "the driver");
  expect(unknown).toBeInstanceOf(DeviceError);
  expect(unknown.message).toContain("got CUDA_ERROR (12345)");
  expect(unknown.fields).toMatchObject({ isLost: false });
});

it("names what a library misses", () => {
  expect(libraryError("nvrtc", "nvrtcCompileProgram", 7).message).toContain("libnvrtc-builtins");
  expect(libraryError("cublasLt", "cublasLtCreate", 1).message).toMatch(
    /NOT_INITIALIZED \(1\) \(the driver may be too old/,
  );
});
