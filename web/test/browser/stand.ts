// Where browser tests stand: the built pages in Debian's Chromium against the
// fake plane, under the same security policy that the binary sends. Importing it
// sets all of that up before each test.
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium, type Browser, type BrowserContext, type Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, expect, vi } from "vitest";
import { Fake } from "../fake/server.mjs";

const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

let browser: Browser;
export let fake: Fake;
export let url: string;
let context: BrowserContext;
export let page: Page;
let wrong: string[]; // whatever no test may cause
export let requests: string[];

beforeAll(async () => {
  if (!existsSync(executablePath)) throw new Error(`no ${executablePath}: apt-get install chromium, or set CHROMIUM`);
  if (!existsSync("dist/index.html")) throw new Error("no dist/index.html: npm run build");
  browser = await chromium.launch({
    executablePath,
    args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"],
  });
});

afterAll(async () => browser?.close());

beforeEach(async () => {
  fake = new Fake();
  fake.pace = 120;
  url = await fake.listen();
  await visitor({});
});

afterEach(async () => {
  await context.close();
  await fake.close();
  expect(wrong).toEqual([]);
  for (const u of requests) {
    expect(new URL(u).hostname).toBe("localhost");
    expect(u).not.toMatch(/code=|ticket\./);
  }
});

/** visitor opens a browser of somebody's own. */
export async function visitor(options: Parameters<Browser["newContext"]>[0]): Promise<void> {
  await context?.close();
  context = await browser.newContext({ viewport: { width: 1280, height: 800 }, reducedMotion: "reduce", ...options });
  page = await context.newPage();
  wrong = [];
  requests = [];
  page.on("pageerror", (e) => wrong.push(e.message));
  page.on("console", (m) => {
    // What a server refuses, Chromium notes as an error; that is no fault of the page.
    if (m.type() === "error" && !/Failed to load resource|WebSocket connection|net::ERR_/.test(m.text())) wrong.push(m.text());
  });
  page.on("request", (r) => requests.push(r.url()));
}

export async function signIn(): Promise<void> {
  fake.code = "open-sesame";
  await page.goto(`${url}/#code=open-sesame`);
  await page.getByRole("button", { name: "Later" }).click();
  await page.getByRole("heading", { name: "Your desktops" }).waitFor();
  await card("Ana's desk").waitFor();
}

export const card = (name: string) => page.getByRole("article", { name });

export async function until(what: () => Promise<boolean> | boolean): Promise<void> {
  await vi.waitFor(async () => expect(await what()).toBe(true), { timeout: 15_000, interval: 50 });
}

export async function accessible(): Promise<void> {
  await page.evaluate(axe);
  const found = await page.evaluate(async () => {
    const r = await (globalThis as unknown as { axe: typeof import("axe-core") }).axe.run(document, {
      runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    });
    return r.violations.map((v) => `${v.id}: ${v.nodes.map((n) => `${n.target.join(" ")} ${n.any[0]?.message ?? ""}`).join("; ")}`);
  });
  expect(found).toEqual([]);
}

export async function fitsAcross(): Promise<void> {
  expect(await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)).toBeLessThanOrEqual(0);
}
