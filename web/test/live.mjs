// What a person does on the first day, in Debian's Chromium against a real
// Consort: LINK is the sign-in link, DESKTOP a card's name, APPLICATION what is
// started from the toolbar. The last line printed says what was seen, as JSON.
import { chromium } from "playwright-core";

const { LINK, DESKTOP, APPLICATION, SHOTS } = process.env;
const patience = 8 * 60_000; // software emulation on two busy cores
const saw = { Connected: false, Typed: false, Started: false, FirstFrame: 0 };

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"],
});
try {
  const page = await browser.newPage({ viewport: { width: 1280, height: 860 }, reducedMotion: "reduce" });
  page.on("pageerror", (e) => console.log("page error:", e.message));
  page.on("console", (m) => m.type() === "error" && console.log("console:", m.text()));
  const shot = async (name) => SHOTS && page.screenshot({ path: `${SHOTS}/${name}.png` });

  await page.goto(LINK);
  await page.getByRole("button", { name: "Later" }).click();
  const card = page.getByRole("article", { name: DESKTOP });
  await card.waitFor();
  await shot("home");
  const pressed = Date.now();
  await card.getByRole("button", { name: `Connect to ${DESKTOP}` }).click();
  await page.getByRole("list", { name: "Progress" }).waitFor({ timeout: 10_000 }).catch(() => {});
  await shot("progress");
  await page.locator(".desk[data-stage=open]").waitFor({ timeout: patience });
  const before = await drawn(page);
  saw.FirstFrame = Date.now() - pressed;
  saw.Connected = true;
  await shot("desktop");

  await page.locator(".pixels canvas").click({ position: { x: 300, y: 250 } });
  await page.keyboard.type("echo this was typed in a browser", { delay: 20 });
  await page.keyboard.press("Enter");
  const typed = await drawn(page, before, 0.0005);
  saw.Typed = true;
  await shot("typed");

  await page.getByRole("toolbar").getByRole("button", { name: "Applications" }).click();
  await page.getByRole("button", { name: `Start ${APPLICATION}` }).click();
  await page.getByText(`${APPLICATION} is running.`).waitFor({ timeout: patience });
  await drawn(page, typed, 0.02); // a window, not a clock
  saw.Started = true;
  await shot("application");
  console.log(JSON.stringify(saw));
} catch (e) {
  console.log(String(e));
  console.log(JSON.stringify(saw));
  process.exitCode = 1;
} finally {
  await browser.close();
}

/**
 * drawn waits until the guest's picture is more than one colour, and at least
 * share of it differs from an earlier one, and returns it: a sample of pixels.
 */
async function drawn(page, earlier, share) {
  for (const end = Date.now() + patience; ; ) {
    const p = await page.evaluate(() => {
      const c = document.querySelector(".pixels canvas");
      if (!c?.width) return [];
      const d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
      const sample = [];
      for (let i = 0; i < d.length; i += 4 * 29) sample.push((d[i] << 16) | (d[i + 1] << 8) | d[i + 2]);
      return new Set(sample).size < 4 ? [] : sample;
    });
    const differs = earlier ? p.filter((v, i) => v !== earlier[i]).length / p.length : 1;
    if (p.length && differs >= (share ?? 0)) return p;
    if (Date.now() > end) throw new Error(`only ${(100 * differs).toFixed(2)} % of the picture changed in time`);
    await new Promise((r) => setTimeout(r, 250));
  }
}
