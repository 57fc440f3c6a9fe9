import { defineConfig } from "vitest/config";

// One Chromium, one fake plane, one test after the other: two cores are few.
export default defineConfig({
  test: { include: ["test/browser/**/*.test.ts"], testTimeout: 60_000, hookTimeout: 60_000, fileParallelism: false },
});
