// A person at the portal in Debian's Chromium, with the clipboard and the
// files of their device: LINK is the sign-in link. Each line of input is an order and gets one
// line in answer, {"error":E} where it went wrong:
//
//   {"do":"open","path":P,"drawer":D}      go to a desktop's page, wait for its picture, open a drawer
//   {"do":"give","text":T}                 copy a text on the device, paste it in the drawer, send it
//   {"do":"got"}                           {"texts":[…]} that came from the desktop since the last "got"
//   {"do":"keep"}                          {"text":T} of the device, when the page has copied the last there
//   {"do":"send","name":N,"content":B}     choose a file of that content (base64) to be sent
//   {"do":"fetch","path":P}                fetch a file
//   {"do":"leave"}                         go elsewhere
//
// "send" and "fetch" answer {"said":S,"saved":B,"body":B}: what the page says in
// the end, what the browser saved (null for nothing), and what the gateway said where it refused.
//
// The page is made to believe that its context allows everything, as that of a
// person who wants more than they may: only the gateway is left to say no.
import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const patience = 45_000; // for one order
let doing = "sign in"; // what an error was about

/** within bounds what nothing else does: Playwright's own waits have bounds, answers of the page have none. */
function within(what, promise) {
  let timer;
  const late = new Promise((_, fail) => {
    timer = setTimeout(() => fail(new Error(`not in ${patience / 1000} s: ${what}`)), patience);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** loosen runs in the page, before anything of ours. */
function loosen() {
  const parse = JSON.parse;
  JSON.parse = (text, reviver) => {
    const o = parse(text, reviver);
    const c = o?.object?.kind === "Context" ? o.object : o;
    if (c?.kind === "Context") {
      c.spec.clipboard = { ...c.spec.clipboard, in: true, out: true, maxBytes: "64Mi" };
      c.spec.files = { in: true, out: true, maxBytes: "64Mi" };
    }
    return o;
  };
  // noVNC tells of each text that it takes from a desktop by an event of this name.
  globalThis.came = [];
  const Plain = globalThis.CustomEvent;
  globalThis.CustomEvent = class extends Plain {
    constructor(name, init) {
      super(name, init);
      if (name === "clipboard") globalThis.came.push(init.detail.text);
    }
  };
}

/** drawn reports in the page whether the desktop's picture is there. */
function drawn() {
  const c = document.querySelector(".pixels canvas");
  return !!c?.width && c.getContext("2d").getImageData(1, 1, 1, 1).data[0] > 0;
}

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"],
});
const context = await browser.newContext({
  viewport: { width: 1280, height: 860 }, reducedMotion: "reduce", permissions: ["clipboard-read", "clipboard-write"],
});
const page = await context.newPage();
page.setDefaultTimeout(patience);
const wrong = [];
page.on("pageerror", (e) => wrong.push(e.message));
const saved = [];
page.on("download", (d) => saved.push(d));

const drawer = page.getByRole("complementary");
let last = ""; // text that came
const device = {
  copy: (text) => within("the device's clipboard takes a text", page.evaluate((t) => navigator.clipboard.writeText(t), text)),
  paste: () => within("the device's clipboard gives its text", page.evaluate(() => navigator.clipboard.readText())),
};

const acts = {
  async open({ path, drawer: name }) {
    await page.goto(new URL(path, process.env.LINK).href);
    await page.locator(".desk[data-stage=open]").waitFor();
    await page.waitForFunction(drawn);
    await page.getByRole("toolbar").getByRole("button", { name }).click();
    await drawer.getByText("From the desktop", { exact: true }).waitFor();
  },
  async leave() {
    await page.goto("about:blank");
  },
  async give({ text }) {
    if (!text) return; // the page has nothing to send then
    await device.copy(text);
    const box = drawer.getByLabel("To the desktop");
    await box.fill("");
    await box.press("Control+V");
    await drawer.getByRole("button", { name: "Send to the desktop" }).click();
    await drawer.getByText("Sent. Paste it in the desktop as usual.").waitFor();
  },
  async got() {
    const texts = await within("the page tells what came", page.evaluate(() => globalThis.came.splice(0)));
    last = texts.at(-1) ?? last;
    return { texts };
  },
  async keep() {
    await drawer.getByRole("button", { name: "Copy to this device" }).click();
    for (const end = Date.now() + patience; ; await page.waitForTimeout(10)) {
      const text = await device.paste();
      if (text === last) return { text };
      if (Date.now() > end) throw new Error(`${last.length} characters came last, and the device has ${text.length}`);
    }
  },
  send: ({ name, content }) =>
    carried(() => drawer.getByLabel("Files to send").setInputFiles({ name, mimeType: "application/octet-stream", buffer: Buffer.from(content, "base64") })),
  fetch: ({ path }) =>
    carried(async () => {
      await drawer.getByLabel("From the desktop").fill(path);
      await drawer.getByRole("button", { name: "Fetch from the desktop" }).click();
    }),
};
/** carried waits for the end of what begins, and tells of it. */
async function carried(begin) {
  const come = page.waitForResponse((r) => new URL(r.url()).pathname.endsWith("/file"));
  come.catch(() => undefined); // begin may fail before
  await begin();
  const answer = await come;
  const refused = drawer.getByRole("alert"); // at once, or where a file breaks off after a good answer
  const result = { said: await refused.or(drawer.getByRole("status").filter({ hasText: " is " })).innerText(), saved: null, body: "" };
  if (!answer.ok()) result.body = (await within("the refusal is read", answer.body())).toString("base64");
  if (await refused.count()) {
    await refused.getByRole("button", { name: "Close" }).click();
  } else if (answer.request().method() === "GET") {
    for (const end = Date.now() + patience; !saved.length; await page.waitForTimeout(10)) {
      if (Date.now() > end) throw new Error(`the browser saved nothing, and the page says ${result.said}`);
    }
  }
  if (saved.length > 1) throw new Error(`the browser saved ${saved.length} files in place of one`);
  const file = saved.pop();
  if (file) result.saved = (await readFile(await within("the file is saved", file.path()))).toString("base64");
  return result;
}

try {
  await page.goto(process.env.LINK);
  await page.getByRole("button", { name: "Later" }).click();
  await page.addInitScript(loosen);
  console.log("{}");
  for await (const line of createInterface({ input: process.stdin })) {
    const order = JSON.parse(line);
    doing = `${order.do} ${order.path ?? order.name ?? order.text?.length ?? ""}`;
    const answer = (await acts[order.do](order)) ?? {};
    if (wrong.length) throw new Error(`the page went wrong: ${wrong.join("; ")}`);
    console.log(JSON.stringify(answer));
  }
} catch (e) {
  console.log(JSON.stringify({ error: `${doing}: ${e}` }));
  process.exitCode = 1;
} finally {
  await browser.close();
}
