/** Prints why tests were skipped, and one closing line that programs can read: `tests: N passed, N failed, N skipped`. */
import type { Reporter, TestModule } from "vitest/node";

export default class ClosingLineReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[]): void {
    let numPassed = 0;
    let numFailed = 0;
    let numSkipped = 0;
    for (const module of modules) {
      if (module.errors().length > 0) numFailed++;
      for (const test of module.children.allTests()) {
        const result = test.result();
        if (result.state === "passed") numPassed++;
        else if (result.state === "failed") numFailed++;
        else {
          numSkipped++;
          const reason = result.state === "skipped" ? result.note : undefined;
          process.stdout.write(`skipped: ${test.fullName}: ${reason ?? "filtered out"}\n`);
        }
      }
    }
    process.stdout.write(`tests: ${numPassed} passed, ${numFailed} failed, ${numSkipped} skipped\n`);
  }
}
