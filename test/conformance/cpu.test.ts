/** The CPU kernels against the reference. */
import { describeConformance } from "./register.ts";

await describeConformance("cpu");
