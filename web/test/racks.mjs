// What an administrator does with hypervisors, in Debian's Chromium against a
// real plane: LINK is the sign-in link. There are rack-1 with the machine desk,
// rack-2 with "Payroll 2019" of others, and two runs of the matrix. The last
// line printed says what was seen, as JSON.
import { chromium } from "playwright-core";

const { LINK, SHOTS } = process.env;
const patience = 60_000;
const saw = { Adopted: false, Given: false, Reasons: false, Moved: false, Drained: false, Matrix: false, Digest: "" };

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"],
});
try {
  const page = await browser.newPage({ viewport: { width: 1280, height: 860 }, reducedMotion: "reduce" });
  page.setDefaultTimeout(patience);
  page.on("pageerror", (e) => console.log("page error:", e.message));
  page.on("console", (m) => m.type() === "error" && console.log("console:", m.text()));
  const shot = async (name) => SHOTS && page.screenshot({ path: `${SHOTS}/${name}.png`, fullPage: true });
  const open = (place) => page.getByRole("navigation", { name: "Places" }).getByRole("link", { name: place }).click();
  const host = (name) => page.getByRole("article", { name, exact: true });
  const dialog = page.getByRole("dialog");
  const button = (name) => dialog.getByRole("button", { name });

  await page.goto(LINK);
  await page.getByRole("button", { name: "Later" }).click();
  await open("Hypervisors");
  await host("rack-2").getByText("1 machine is not ours").click();
  await shot("inventory");
  await page.getByRole("button", { name: "Adopt Payroll 2019…" }).click();
  await dialog.getByText("2 processors, 1 GiB of memory").waitFor();
  await button("Adopt it").click();
  await host("rack-2").getByText("adopted").waitFor();
  saw.Adopted = true;

  // An adopted machine stays where it is: a drain says so before it begins.
  await page.getByRole("button", { name: "Drain… rack-2" }).click();
  await dialog.getByText("it was adopted", { exact: false }).waitFor();
  saw.Reasons = true;
  await page.keyboard.press("Escape");
  await page.getByRole("button", { name: "Give back payroll-2019" }).click();
  await button("Give it back").click();
  await host("rack-2").getByText("1 machine is not ours").waitFor();
  saw.Given = true;

  await page.getByRole("button", { name: "Move desk to…" }).click();
  await dialog.getByText("goes to rack-2").waitFor();
  await dialog.getByRole("radio", { name: /^rack-2/ }).check();
  await dialog.getByLabel("Why, for the journal").fill("to see it go");
  await shot("move");
  await button("Move it to rack-2").click();
  const ended = page.locator("details.move").filter({ hasText: "Moved" });
  await ended.waitFor();
  await ended.locator("summary").click();
  await ended.getByText("to see it go").waitFor();
  saw.Digest = (await ended.locator(".hash code").textContent()) ?? "";
  await shot("moved");
  saw.Moved = (await ended.getByRole("list", { name: "Steps" }).locator("li:not(.done)").count()) === 0;

  await open("Hypervisors");
  await page.getByRole("button", { name: "Drain… rack-2" }).click();
  await dialog.getByRole("heading", { name: "1 can move" }).waitFor();
  await button("Drain rack-2").click();
  await dialog.getByRole("link", { name: "See the moves" }).click();
  await page.locator("details.move").filter({ hasText: "Moved" }).nth(1).waitFor();
  await open("Hypervisors");
  await host("rack-2").getByText("No machine of ours is on it.").waitFor();
  await page.getByRole("button", { name: "Take rack-2 back into use" }).click();
  await page.getByRole("button", { name: "Drain… rack-2" }).waitFor();
  saw.Drained = true;

  await open("Matrix");
  await page.getByText("0 better, 1 worse").waitFor();
  saw.Matrix = (await page.getByRole("table", { name: "Boot to agent" }).textContent())?.includes("worse, +100 %") ?? false;
  console.log(JSON.stringify(saw));
} catch (e) {
  console.log(String(e));
  console.log(JSON.stringify(saw));
  process.exitCode = 1;
} finally {
  await browser.close();
}
