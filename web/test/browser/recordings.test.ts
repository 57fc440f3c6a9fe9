// What was recorded is shown again, in a real browser, as it was seen.
import { beforeEach, describe, expect, test } from "vitest";
import { accessible, card, fake, page, signIn, until, url } from "./stand";

const stage = (name: string) => page.locator(`.desk[data-stage=${name}]`);
const colours = () =>
  page.evaluate(() => {
    const c = document.querySelector<HTMLCanvasElement>(".pixels canvas");
    if (!c?.width) return "";
    return [...c.getContext("2d")!.getImageData(0, Math.floor(c.height / 2), c.width, 1).data].join(" ");
  });

describe("recordings", () => {
  beforeEach(async () => {
    fake.admin = true;
    await signIn();
  });

  test("are played as they were seen", async () => {
    await card("Ana's desk").getByRole("button", { name: "Connect to Ana's desk" }).click();
    await stage("open").waitFor();
    await until(async () => new Set((await colours()).split(" ")).size > 20);
    await page.keyboard.press("a"); // the picture changes
    await until(() => fake.seen.keys.length > 0);
    await page.waitForTimeout(300);
    const seen = await colours();
    const asked = fake.seen.asked;
    await page.goto(`${url}/recordings`);
    await page.getByRole("link", { name: /desk ana/ }).click();
    await page.getByRole("button", { name: "Play" }).waitFor({ timeout: 15_000 }); // it has come to its end
    await until(async () => (await colours()) === seen);
    expect(fake.seen.asked).toBe(asked); // nobody was asked for a picture
    await page.getByRole("slider", { name: "Moment" }).fill("0");
    await until(async () => (await colours()) !== seen);
    await page.getByRole("button", { name: "Play" }).click();
    await until(async () => (await colours()) === seen);
    await accessible();
  });

  test("that were altered are not", async () => {
    fake.film = [{ at: 0, shown: "" }];
    fake.filmed = Date.now();
    fake.altered = true;
    await page.goto(`${url}/recordings/${"0".repeat(32)}`);
    await page.getByRole("alert").getByText("is not as it was written").waitFor();
    expect(await page.locator(".player canvas").count()).toBe(0);
  });
});
