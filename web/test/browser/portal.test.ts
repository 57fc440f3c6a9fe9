// What people do with their desktops, in a real browser.
import { readdirSync, readFileSync, statSync } from "node:fs";
import { beforeEach, describe, expect, test } from "vitest";
import { accessible, card, fake, fitsAcross, page, requests, signIn, until, url, visitor } from "./stand";

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

  test("is sent its picture without asking for it, and says when it has drawn it", async () => {
    await connect();
    const asked = fake.seen.asked;
    for (let n = 1; n <= 8; n++) {
      const before = await picture();
      const pushed = fake.seen.pushed;
      await page.keyboard.press("k");
      await until(() => fake.seen.pushed > pushed);
      await until(async () => (await picture()) !== before);
    }
    await until(() => fake.seen.fences.length === fake.seen.pushed);
    expect(fake.seen.fences).toEqual(fake.seen.fences.map((_: number, i: number) => i));
    expect(fake.seen.asked).toBe(asked); // noVNC asked for nothing
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
    const tools = await page.getByRole("toolbar").getByRole("button").count();
    for (let i = 0; i < tools; i++) await page.keyboard.press("Tab");
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

  test("that lasts as long as a session is thrown away from its card", async () => {
    const context = fake.get("Context", "vault")!;
    const books = fake.get("Desktop", "books")!;
    fake.put({ ...context, spec: { ...context.spec, lifetime: "disposable" } });
    fake.put({ ...books, status: { ...books.status, plan: { ...books.status.plan, disposable: true } } });
    fake.put({ ...books, kind: "Machine", metadata: { ...books.metadata, name: "books-m" }, spec: { power: "on" }, status: {} });
    await card("The books").getByRole("button", { name: "Throw away The books" }).click();
    await page.getByRole("dialog").getByText("Everything on this one is gone for good").waitFor();
    await page.getByRole("dialog").getByRole("button", { name: "Throw away" }).click();
    await until(() => fake.seen.resets === 1);
    expect(await card("Ana's desk").getByRole("button", { name: /Throw away/ }).count()).toBe(0);
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
