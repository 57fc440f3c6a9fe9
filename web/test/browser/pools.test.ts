// Any free seat, in a real browser: from the card through the queue to the seat.
import { mkdirSync } from "node:fs";
import { beforeEach, describe, expect, test } from "vitest";
import { pool } from "../fake/estate.mjs";
import { accessible, card, fake, fitsAcross, page, signIn, until } from "./stand";

/** picture keeps what the page looks like where SHOTS says. */
async function picture(name: string): Promise<void> {
  if (!process.env.SHOTS) return;
  mkdirSync(process.env.SHOTS, { recursive: true });
  await page.screenshot({ path: `${process.env.SHOTS}/${name}.png`, fullPage: true });
}

/** session is the name of the one there is. */
const session = (): string => [...fake.objects.values()].find((o) => o.kind === "Session")!.metadata.name;

async function connect(): Promise<void> {
  await card("Front office").getByRole("button", { name: "Connect to Front office" }).click();
  await page.getByRole("heading", { name: "Connecting to Front office" }).waitFor();
  await until(() => [...fake.objects.values()].some((o) => o.kind === "Session"));
}

/** disposable has the context that seats are in last as long as a session. */
function disposable(): void {
  const context = fake.get("Context", "work")!;
  fake.put({ ...context, spec: { ...context.spec, lifetime: "disposable" } });
}

describe("a pool", () => {
  beforeEach(async () => {
    fake.put(pool("counter", "Front office", { warm: 3, queue: 0 }));
    await signIn();
  });

  test("is a card that says how likely a seat is", async () => {
    await card("Front office").getByText("3 seats are ready").waitFor();
    fake.status("Pool", "counter", { warm: 0, queue: 12 });
    await card("Front office").getByText("12 persons wait").waitFor();
    await accessible();
    await picture("card");
  });

  test("tells who waits their place and how long, then the phases, then shows the seat", async () => {
    await connect();
    const queue = page.getByLabel("Your place in the queue");
    fake.status("Session", session(), { queue: { place: 7, of: 12, expected: new Date(Date.now() + 130_000).toISOString(), assumed: true } });
    await queue.getByText("7 of 12").waitFor();
    await queue.getByText("About 2 minutes").waitFor();
    await queue.getByText("A guess: nothing was measured here yet").waitFor();
    await page.locator(".desk .context").getByText("Work", { exact: true }).waitFor(); // the context is known before the seat
    await accessible();
    await picture("queue");
    fake.status("Session", session(), { queue: { place: 1, of: 6, expected: new Date(Date.now() + 2_000).toISOString() } });
    await queue.getByText("1 of 6").waitFor();
    await queue.getByText("Any moment now").waitFor();
    expect(await queue.getByText("A guess").count()).toBe(0);

    fake.holdAt = "start";
    fake.seat(session());
    await page.getByRole("list", { name: "Progress" }).getByText("Starting the machine").waitFor();
    expect(await queue.count()).toBe(0);
    await page.getByRole("heading", { name: "Connecting to Front office" }).waitFor(); // as it was called before
    await accessible();
    await fitsAcross();
    await picture("phases");
    fake.holdAt = "";
    fake.goOn();
    await page.locator(".desk[data-stage=open]").waitFor();
    await picture("seat");
  });

  test("says so when nobody knows how long it takes", async () => {
    await connect();
    fake.status("Session", session(), { queue: { place: 2, of: 2 } });
    await page.getByLabel("Your place in the queue").getByText("Nobody can say yet how long it takes").waitFor();
  });

  test("lets go of the place of who cancels", async () => {
    await connect();
    const name = session();
    fake.status("Session", name, { queue: { place: 2, of: 3 } });
    await page.getByLabel("Your place in the queue").waitFor();
    await page.getByRole("button", { name: /Cancel/ }).click();
    await until(() => fake.get("Session", name)?.status.state === "ended");
    await card("Front office").waitFor();
  });

  test("gives another seat to who throws theirs away", async () => {
    disposable();
    await card("Front office").getByText("A fresh one each time").waitFor();
    await connect();
    const first = session();
    fake.seat(first);
    await page.locator(".desk[data-stage=open]").waitFor();
    expect(await page.getByRole("toolbar").getByRole("button", { name: "Reset" }).count()).toBe(0);
    await page.getByRole("toolbar").getByRole("button", { name: "Throw away" }).click();
    await page.getByRole("dialog").getByText("Everything on this one is gone for good").waitFor();
    await accessible();
    await picture("throw-away");
    await page.getByRole("dialog").getByRole("button", { name: "Throw away" }).click();
    await until(() => fake.get("Session", first)?.status.state === "ended");
    const going = () => [...fake.objects.values()].find((o) => o.kind === "Session" && o.status.state !== "ended");
    await until(() => !!going()); // asked for without another click
    fake.seat(going()!.metadata.name);
    await page.locator(".desk[data-stage=open]").waitFor();
    expect(fake.seen.resets).toBeUndefined();

    await page.goBack();
    await card("Front office").getByRole("button", { name: "Throw away Front office" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Throw away" }).click();
    await until(() => !going());
  });

  test("stands among thirty others without getting lost", async () => {
    for (let i = 1; i < 30; i++) fake.put(pool(`pool-${i}`, `Office ${i}`, { warm: i % 4, queue: i % 4 ? 0 : i }));
    await card("Office 29").waitFor();
    const names = await page.getByRole("article").getByRole("heading").allTextContents();
    expect(names.slice(0, 4)).toEqual(["Front office", "Office 1", "Office 2", "Office 3"]);
    expect(await page.getByRole("article").count()).toBe(33);
    await fitsAcross();
    await accessible();
    await picture("thirty");
  });
});
