import { defineConfig } from "vitest/config";

/** `unit`: pure TypeScript, parallel. `device`: native code and whole programs, one file at a time. */
export default defineConfig({
  test: {
    reporters: ["default", "./test/closing-line-reporter.ts"],
    projects: [
      { test: { name: "unit", include: ["src/**/*.test.ts", "scripts/**/*.test.ts"], testTimeout: 30_000 } },
      {
        test: {
          name: "device",
          include: ["test/**/*.test.ts"],
          pool: "forks",
          fileParallelism: false,
          testTimeout: 300_000,
          hookTimeout: 300_000,
        },
      },
    ],
  },
});
