// The built pages in Debian's Chromium against the fake plane, under the same
// security policy that the binary sends.
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium, type Browser, type BrowserContext, type Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { Fake } from "../fake/server.mjs";

const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

let browser: Browser;
let fake: Fake;
let url: string;
let context: BrowserContext;
let page: Page;
let wrong: string[]; // whatever no test may cause
let requests: string[];

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
async function visitor(options: Parameters<Browser["newContext"]>[0]): Promise<void> {
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

async function signIn(): Promise<void> {
  fake.code = "open-sesame";
  await page.goto(`${url}/#code=open-sesame`);
  await page.getByRole("button", { name: "Later" }).click();
  await page.getByRole("heading", { name: "Your desktops" }).waitFor();
  await card("Ana's desk").waitFor();
}

const card = (name: string) => page.getByRole("article", { name });
const tool = (name: string) => page.getByRole("toolbar").getByRole("button", { name });
const stage = (name: string) => page.locator(`.desk[data-stage=${name}]`);

async function connect(name = "Ana's desk"): Promise<void> {
  await card(name).getByRole("button", { name: `Connect to ${name}` }).click();
  await stage("open").waitFor();
  await until(async () => (await shades()) > 20);
}

/** shades counts the different colours along a line of the guest's picture. */
function shades(): Promise<number> {
  return page.evaluate(() => {
    const c = document.querySelector<HTMLCanvasElement>(".pixels canvas");
    if (!c?.width) return 0;
    const d = c.getContext("2d")!.getImageData(0, Math.floor(c.height / 2), c.width, 1).data;
    const seen = new Set<number>();
    for (let i = 0; i < d.length; i += 4) seen.add((d[i]! << 16) | (d[i + 1]! << 8) | d[i + 2]!);
    return seen.size;
  });
}

const picture = () => page.evaluate(() => document.querySelector<HTMLCanvasElement>(".pixels canvas")!.toDataURL());

async function until(what: () => Promise<boolean> | boolean): Promise<void> {
  await vi.waitFor(async () => expect(await what()).toBe(true), { timeout: 15_000, interval: 50 });
}

async function accessible(): Promise<void> {
  await page.evaluate(axe);
  const found = await page.evaluate(async () => {
    const r = await (globalThis as unknown as { axe: typeof import("axe-core") }).axe.run(document, {
      runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    });
    return r.violations.map((v) => `${v.id}: ${v.nodes.map((n) => `${n.target.join(" ")} ${n.any[0]?.message ?? ""}`).join("; ")}`);
  });
  expect(found).toEqual([]);
}

async function fitsAcross(): Promise<void> {
  expect(await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)).toBeLessThanOrEqual(0);
}

describe("signing in", () => {
  test("by a link that works once leaves no code in the address or the history", async () => {
    await page.goto(`${url}/#code=open-sesame`);
    await page.getByRole("heading", { name: "Welcome, Ana Lovelace" }).waitFor();
    expect(page.url()).toBe(`${url}/`);
    expect(await page.evaluate(() => history.length)).toBeLessThanOrEqual(2);
    expect(fake.seen.posts[0]).toMatchObject({ path: "/v1/sign-in/code", body: { code: "open-sesame" } });
    await accessible();
  });

  test("by a link that was used says what to do, and a password does", async () => {
    fake.code = "";
    await page.goto(`${url}/#code=open-sesame`);
    await page.getByRole("alert").getByText("This sign-in code has been used").waitFor();
    await page.getByLabel("Your name").fill("ana");
    await page.getByLabel("Password").fill("wrong");
    await page.keyboard.press("Enter");
    await page.getByText("The name or the password is wrong.").waitFor();
    await accessible();
    await page.getByLabel("Password").fill(fake.password);
    await page.keyboard.press("Enter");
    await card("Ana's desk").waitFor();
  });

  test("offers to set a password, which then signs in", async () => {
    await page.goto(`${url}/#code=open-sesame`);
    await page.getByLabel("New password").fill("four quiet violins");
    await page.getByRole("button", { name: "Set the password" }).click();
    await page.getByText("Your password is set.").waitFor();
    await page.getByRole("button", { name: "Go to your desktops" }).click();
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.getByLabel("Your name").fill("ana");
    await page.getByLabel("Password").fill("four quiet violins");
    await page.keyboard.press("Enter");
    await card("Ana's desk").waitFor();
  });
});

describe("the desktops", () => {
  beforeEach(signIn);

  test("are cards with state, context and applications", async () => {
    const c = card("Ana's desk");
    for (const text of ["Work", "Off", "Debian 12"]) await c.getByText(text).first().waitFor();
    expect(await c.getByRole("list", { name: /Applications of/ }).getByRole("button").count()).toBe(3);
    await accessible();
  });

  test("change before one's eyes, without asking again", async () => {
    const before = requests.length;
    fake.status("Desktop", "desk", { state: "running" });
    await card("Ana's desk").getByText("Running").waitFor();
    fake.remove("Desktop", "play");
    await card("Play").waitFor({ state: "detached" });
    expect(requests.length).toBe(before);
  });

  test("that wait for an image show how far it is", async () => {
    const image = fake.get("Image", "debian-12-desktop");
    fake.put({ ...image, status: { work: { phase: "unpacking packages", step: 2, steps: 5, percent: 37 } } });
    fake.status("Desktop", "desk", { state: "preparing" });
    const bar = card("Ana's desk").getByRole("progressbar", { name: "Debian 12: unpacking packages" });
    await bar.waitFor();
    expect(await bar.getAttribute("aria-valuenow")).toBe("37");
  });

  test("that cannot be composed say why, and cannot be pressed", async () => {
    const conditions = [{ type: "Ready", status: "False", text: "image debian-13 is not there; import it first" }];
    fake.status("Desktop", "desk", { state: "blocked", conditions });
    await card("Ana's desk").getByText("Image debian-13 is not there; import it first.").waitFor();
    expect(await card("Ana's desk").getByRole("button", { name: /Connect/ }).isDisabled()).toBe(true);
    await accessible();
  });

  test("say so when the plane is away, and recover by themselves", async () => {
    fake.cutOff(true);
    await page.getByText("Consort does not answer.").waitFor();
    await accessible();
    fake.cutOff(false);
    fake.status("Desktop", "desk", { state: "running" });
    await page.getByRole("button", { name: "Try now" }).click();
    await card("Ana's desk").getByText("Running").waitFor();
    await page.getByText("Consort does not answer.").waitFor({ state: "detached" });
  });
});

describe("the hypervisors", () => {
  const rack = {
    apiVersion: "consort.dev/v1",
    kind: "Hypervisor",
    metadata: { name: "rack-1", uid: "rack-1", version: 2 },
    spec: { provider: "iron" },
    status: {
      state: "ready",
      product: "Iron 4.2",
      accelerator: "tcg",
      because: "the processor has no virtualisation",
      guestTypes: ["plain", "bare"],
      capabilities: [
        { name: "display", has: true, value: "rfb", guestType: "plain", evidence: "verified" },
        { name: "display", has: false, reason: "a bare guest has no screen", guestType: "bare", evidence: "declared" },
        { name: "snapshot", has: true, evidence: "simulated" },
        { name: "console", has: true, evidence: "declared" },
      ],
      found: [
        { id: "11111111-1111-4111-8111-111111111111", name: "payroll", power: "on" },
        { id: "22222222-2222-4222-8222-222222222222", name: "passthrough", power: "off", obstacle: "it has a device of the host's" },
      ],
    },
  };

  test("are shown to administrators only", async () => {
    await signIn();
    expect(await page.getByRole("link", { name: "Hypervisors" }).count()).toBe(0);
  });

  test("say what they can do, how that is known, and what was there before", async () => {
    fake.admin = true;
    await signIn();
    fake.put(rack);
    await page.getByRole("link", { name: "Hypervisors" }).click();
    const host = page.getByRole("article", { name: "rack-1" });
    await host.getByText("Iron 4.2").waitFor();
    const badge = (list: string, name: RegExp) => host.getByRole("list", { name: list }).getByRole("listitem").filter({ hasText: name });
    expect(await badge("What plain guests can do", /^display: rfb/).textContent()).toContain("verified");
    expect(await badge("What bare guests can do", /^display/).textContent()).toContain("absent: a bare guest has no screen");
    expect(await badge("What it can do", /^snapshot/).getAttribute("title")).toContain("on a simulator only");
    expect(await badge("What it can do", /^console/).getAttribute("title")).toContain("the provider says so");
    await host.getByText("2 machines are not ours").click();
    await host.getByText("consort adopt rack-1 11111111-1111-4111-8111-111111111111").waitFor();
    await host.getByText("cannot be adopted: it has a device of the host's").waitFor();
    expect(await host.getByText(/consort adopt rack-1 2222/).count()).toBe(0);
    await accessible();
    if (process.env.SHOTS) await page.screenshot({ path: `${process.env.SHOTS}/hypervisors.png` });
    fake.put({ ...rack, metadata: { ...rack.metadata, version: 3 }, status: { ...rack.status, state: "lost", waiting: "its agent does not answer" } });
    await host.getByText("lost").waitFor();
  });
});

describe("a desktop", () => {
  beforeEach(signIn);

  test("is reached with the keyboard alone, shows its phases, then its picture; typing changes it", async () => {
    fake.holdAt = "desktop";
    await card("Ana's desk").getByRole("button", { name: /Connect/ }).focus();
    await page.keyboard.press("Enter");
    await page.locator('[aria-current="step"]').getByText("Drawing the desktop").waitFor();
    expect(await page.getByRole("list", { name: "Progress" }).locator("li.done").count()).toBe(4);
    await accessible();
    fake.goOn();
    await stage("open").waitFor();
    await until(async () => (await shades()) > 20);
    const before = await picture();
    await page.keyboard.type("hi");
    await until(() => fake.seen.keys.length >= 2);
    expect(fake.seen.keys.slice(-2)).toEqual([0x68, 0x69]);
    await until(async () => (await picture()) !== before);
    await accessible();
  });

  test("gives the keyboard back on Ctrl, Alt and Shift, and holds no key down", async () => {
    await connect();
    await page.keyboard.down("Control");
    await page.keyboard.down("Alt");
    await page.keyboard.down("Shift");
    await until(() => page.evaluate(() => document.activeElement?.getAttribute("aria-label") === "Applications"));
    await until(() => [0xffe3, 0xffe9].every((k) => fake.seen.releases.includes(k)));
    for (const k of ["Shift", "Alt", "Control"]) await page.keyboard.up(k);
    const keys = fake.seen.keys.length;
    await page.keyboard.press("ArrowDown");
    for (let i = 0; i < 8; i++) await page.keyboard.press("Tab");
    expect(fake.seen.keys.length).toBe(keys);
    await page.keyboard.press("x");
    await until(() => fake.seen.keys.at(-1) === 0x78);
  });

  test("is left with Esc while it is brought up, and waits for nobody then", async () => {
    fake.holdAt = "boot";
    await card("Ana's desk").getByRole("button", { name: /Connect/ }).click();
    await page.locator('[aria-current="step"]').first().waitFor();
    await page.keyboard.press("Escape");
    await page.getByRole("heading", { name: "Your desktops" }).waitFor();
    await until(() => fake.seen.posts.some((p: { method: string; body: { spec?: { end?: boolean } } }) => p.method === "PATCH" && p.body.spec?.end === true));
    expect(fake.seen.tickets).toBe(0);
  });

  test("comes back after a drop with a fresh ticket", async () => {
    await connect();
    fake.drop();
    await until(() => fake.seen.tickets === 2); // too quick for its notice to be looked for
    await stage("open").waitFor();
    await until(async () => (await shades()) > 20);
    expect(fake.seen.tickets).toBe(2);
    await page.keyboard.press("y");
    await until(() => fake.seen.keys.at(-1) === 0x79);
  });

  test("comes back after the plane was away", async () => {
    await connect();
    fake.cutOff(true);
    fake.drop();
    await page.getByText("The connection dropped").waitFor();
    await accessible();
    fake.cutOff(false);
    await stage("open").waitFor();
    expect(page.url()).toContain("/desktops/office/desk");
  });

  test("comes back after the page is loaded again", async () => {
    await connect();
    await page.reload();
    await stage("open").waitFor();
  });

  test("takes text in and gives text out where its context allows it", async () => {
    await connect();
    await tool("Clipboard").click();
    await page.getByLabel("To the desktop").fill("from here");
    await page.getByRole("button", { name: "Send to the desktop" }).click();
    await until(() => fake.seen.texts.includes("from here"));
    fake.cut("from there");
    await until(async () => (await page.getByLabel("From the desktop").inputValue()) === "from there");
    await accessible();
    await page.getByLabel("To the desktop").fill("x".repeat(65_537));
    await page.getByText("the most that may cross").waitFor();
    expect(await page.getByRole("button", { name: "Send to the desktop" }).isDisabled()).toBe(true);
  });

  test("says that its context keeps texts in and out", async () => {
    await connect("The books");
    await tool("Clipboard").click();
    await page.getByText("Vault lets no text into its desktops.").waitFor();
    await page.getByText("Vault lets no text out of its desktops.").waitFor();
    expect(await page.locator("textarea").count()).toBe(0);
  });

  test("sends Ctrl-Alt-Del and keys the browser keeps", async () => {
    await connect();
    await tool("Ctrl-Alt-Del").click();
    await until(() => fake.seen.keys.slice(-3).join() === [0xffe3, 0xffe9, 0xffff].join());
    await tool("Keyboard").click();
    await page.getByRole("button", { name: "F11" }).click();
    await until(() => fake.seen.keys.at(-1) === 0xffc8);
    await page.getByLabel("Type here").pressSequentially("é");
    await until(() => fake.seen.keys.at(-1) === 0xe9);
    await accessible();
  });

  test("starts an application from its card", async () => {
    await card("Ana's desk").getByRole("button", { name: "Start Writer" }).click();
    await stage("open").waitFor();
    await page.getByText("Writer is running.").waitFor();
    expect(fake.seen.starts).toEqual(["writer"]);
  });

  test("starts an application from the bar and tells when it could not", async () => {
    await connect();
    await tool("Applications").click();
    await page.getByRole("button", { name: "Start Sheets" }).click();
    await until(() => fake.seen.starts.includes("sheets"));
    fake.refuseStart = "the layer of Firefox is not mounted";
    await page.getByRole("button", { name: "Start Firefox" }).click();
    await page.getByRole("alert").getByText("The layer of Firefox is not mounted.").waitFor();
  });

  test("is reset only after a yes", async () => {
    await connect();
    await tool("Reset").click();
    await page.getByRole("dialog").getByText("Your home folder stays").waitFor();
    await accessible();
    await page.keyboard.press("Enter"); // the safe answer has the focus
    await page.getByRole("dialog").waitFor({ state: "detached" });
    expect(fake.seen.resets).toBeUndefined();
    await tool("Reset").click();
    await page.getByRole("dialog").getByRole("button", { name: "Reset" }).click();
    await until(() => fake.seen.resets === 1);
    const patch = fake.seen.posts.find((p: { method: string }) => p.method === "PATCH");
    expect(patch).toMatchObject({ path: "/v1/projects/office/desktops/desk", type: "application/merge-patch+json" });
  });

  test("is turned off from its card after a yes", async () => {
    const c = card("The books");
    await c.getByRole("button", { name: "Turn off The books" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Turn off" }).click();
    await c.getByText("Off", { exact: true }).waitFor();
    expect(fake.get("Desktop", "books").spec.power).toBe("off");
    expect(await c.getByRole("button", { name: /Turn off/ }).count()).toBe(0);
  });

  test("is left for good by Disconnect, and its last picture stays on the card", async () => {
    await connect();
    await tool("Disconnect").click();
    await card("Ana's desk").locator("img").waitFor();
    await until(() => fake.tunnels.size === 0);
    expect(await page.evaluate(() => ({ ...localStorage, ...sessionStorage }))).toEqual({});
  });

  test("that is ended from elsewhere says so and does not come back by itself", async () => {
    await connect();
    const s = [...fake.objects.values()].find((o) => o.kind === "Session");
    fake.put({ ...s, spec: { ...s.spec, end: true }, status: { ...s.status, state: "ended", because: "the administrator ended it" } });
    fake.drop();
    await page.getByText("The administrator ended it.").waitFor();
    await accessible();
    await page.getByRole("button", { name: "Connect again" }).click();
    await stage("open").waitFor();
  });

  test("that no page can show says how else", async () => {
    fake.way = { name: "wide", protocol: "other" };
    await card("Ana's desk").getByRole("button", { name: /Connect/ }).click();
    await page.getByText("consort connect desk").waitFor();
    await accessible();
  });
});

describe("every page", () => {
  for (const colorScheme of ["light", "dark"] as const) {
    test(`reads well on a telephone, ${colorScheme}`, async () => {
      await visitor({ viewport: { width: 360, height: 740 }, colorScheme, hasTouch: true, isMobile: true });
      await page.goto(url);
      await page.getByRole("heading", { name: "Sign in to Consort" }).waitFor();
      await fitsAcross();
      await accessible();
      await signIn();
      await fitsAcross();
      await accessible();
      await connect();
      await fitsAcross();
      await tool("Clipboard").click();
      await fitsAcross();
      await accessible();
    });
  }

  test("comes quickly: less than 150 kB before a desktop is opened", () => {
    const html = readFileSync("dist/index.html", "utf8");
    const first = readdirSync("dist/assets").filter((f) => f.endsWith(".gz") && html.includes(f.slice(0, -3)));
    expect(first.length).toBeGreaterThanOrEqual(2);
    expect(first.reduce((n, f) => n + statSync(`dist/assets/${f}`).size, 0)).toBeLessThan(150_000);
  });
});
