import { defineConfig } from "vitest/config";

/**
 * Programs of others against this server: `npm run test:interop`, with NAUTILUS_PYTHON naming a Python that has their packages. Apart
 * from the other tests because few machines have them.
 */
export default defineConfig({
  test: {
    reporters: ["default", "./test/closing-line-reporter.ts"],
    include: ["test/interop/**/*.interop.ts"],
    fileParallelism: false,
    testTimeout: 300_000,
    hookTimeout: 300_000,
  },
});
