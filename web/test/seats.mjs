// How long a person looks at the portal before a pool's seat is drawn, in
// Debian's Chromium: LINK is the sign-in link. For each line read, a card's name,
// it presses Connect and answers with the milliseconds from the click to the first
// animation frame that has the desktop in it.
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const patience = 120_000;

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"],
});
try {
  const page = await browser.newPage({ viewport: { width: 1280, height: 860 }, reducedMotion: "reduce" });
  page.setDefaultTimeout(patience);
  await page.goto(process.env.LINK);
  await page.getByRole("button", { name: "Later" }).click();
  const home = page.url();
  for await (const pool of createInterface({ input: process.stdin })) {
    if (page.url() !== home) await page.goto(home);
    const press = page.getByRole("article", { name: pool }).getByRole("button", { name: `Connect to ${pool}` });
    await press.waitFor();
    const drawn = page.evaluate(watch, patience);
    await press.click();
    console.log((await drawn).toFixed(1));
    await page.getByRole("button", { name: "Disconnect" }).click();
    await press.waitFor();
  }
} finally {
  await browser.close();
}

/** watch resolves to the milliseconds between the next click and a canvas that is more than one colour. */
function watch(patience) {
  const small = new OffscreenCanvas(40, 25).getContext("2d", { willReadFrequently: true });
  return new Promise((resolve, reject) => {
    let began = 0;
    addEventListener("click", () => (began ||= performance.now()), { capture: true, once: true });
    const look = () => {
      const canvas = document.querySelector(".pixels canvas");
      if (began && canvas?.width) {
        small.drawImage(canvas, 0, 0, 40, 25);
        const colours = new Set(new Uint32Array(small.getImageData(0, 0, 40, 25).data.buffer));
        if (colours.size >= 4) return resolve(performance.now() - began);
      }
      if (began && performance.now() - began > patience) return reject(new Error("nothing was drawn in time"));
      requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
  });
}
