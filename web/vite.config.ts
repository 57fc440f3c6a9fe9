import { gzipSync } from "node:zlib";
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import react from "@vitejs/plugin-react";
import { defineConfig, type Plugin } from "vite";

// dist/placeholder.html is in the repository, so the folder is not emptied;
// what an earlier build left goes here, and each text gets a compressed twin
// that the Go handler sends.
function dist(): Plugin {
  return {
    name: "dist",
    apply: "build",
    buildStart() {
      rmSync("dist/assets", { recursive: true, force: true });
    },
    closeBundle() {
      const texts = ["dist/index.html"];
      for (const f of readdirSync("dist/assets")) texts.push(join("dist/assets", f));
      for (const f of texts) {
        if (/\.(js|css|html|svg)$/.test(f)) writeFileSync(f + ".gz", gzipSync(readFileSync(f), { level: 9 }));
      }
    },
  };
}

export default defineConfig({
  plugins: [react(), dist()],
  build: { target: "es2022", emptyOutDir: false, assetsInlineLimit: 0, modulePreload: { polyfill: false } },
  server: { proxy: { "/v1": { target: process.env.CONSORT ?? "http://localhost:7480", ws: true } } },
  test: { include: ["test/unit/**/*.test.ts"] },
} as Parameters<typeof defineConfig>[0]);
