/** The CUDA kernels against the reference; skipped where there is no device. */
import { describeConformance } from "./register.ts";

await describeConformance("cuda");
