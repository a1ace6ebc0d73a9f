/** The conformance suite on the reference itself: what remains to fail is aliasing, guards, graphs and accounting. */
import { describeConformance } from "./register.ts";

await describeConformance("reference", { maxElements: 100_000 });
