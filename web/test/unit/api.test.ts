import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { mark, part } from "../../api.mjs";

test("the types are those of the API's document; if not: npm run api", () => {
  expect(readFileSync("src/api.gen.ts", "utf8").split("\n")[0] + "\n").toBe(mark(part()));
});
