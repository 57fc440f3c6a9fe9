// What an administrator does with hypervisors, moves and the matrix, in a real browser.
import { beforeEach, describe, expect, test } from "vitest";
import { ago, journal, onTheWay, racks, trials } from "../fake/racks.mjs";
import { accessible, card, fake, fitsAcross, page, requests, signIn, until, visitor } from "./stand";

interface Post {
  method: string;
  path: string;
  body: { to?: string; dryRun?: boolean; force?: boolean; name?: string };
}

const posts = (path: RegExp): Post[] => fake.seen.posts.filter((p: Post) => path.test(p.path));
const begun = (path: RegExp): Post[] => posts(path).filter((p) => !p.body.dryRun);
const host = (name: string) => page.getByRole("article", { name, exact: true });
const dialog = () => page.getByRole("dialog");
const open = (place: string) => page.getByRole("navigation", { name: "Places" }).getByRole("link", { name: place }).click();

async function shot(name: string): Promise<void> {
  if (process.env.SHOTS) await page.screenshot({ path: `${process.env.SHOTS}/${name}.png`, fullPage: true });
}

beforeEach(() => {
  fake.admin = true;
  for (const o of racks()) fake.put(o);
});

test("people who are no administrators see none of it", async () => {
  fake.admin = false;
  await signIn();
  expect(await page.getByRole("navigation", { name: "Places" }).count()).toBe(0);
  expect(await page.getByRole("button", { name: /^Move / }).count()).toBe(0);
});

describe("a hypervisor", () => {
  beforeEach(async () => {
    await signIn();
    await open("Hypervisors");
    await host("rack-1").waitFor();
  });

  test("says what it can do, how that is known, and that it is lost", async () => {
    const capabilities = [
      { name: "display", has: true, value: "rfb", guestType: "plain", evidence: "verified" },
      { name: "display", has: false, reason: "a bare guest has no screen", guestType: "bare", evidence: "declared" },
      { name: "snapshot", has: true, evidence: "simulated" },
      { name: "console", has: true, evidence: "declared" },
    ];
    fake.put({ ...fake.get("Hypervisor", "rack-1", ""), status: { state: "lost", product: "Iron 4.2", waiting: "its agent does not answer", capabilities } });
    const h = host("rack-1");
    await h.getByText("Iron 4.2").waitFor();
    const badge = (list: string, name: RegExp) => h.getByRole("list", { name: list }).getByRole("listitem").filter({ hasText: name });
    expect(await badge("What plain guests can do", /^display: rfb/).textContent()).toContain("verified");
    expect(await badge("What bare guests can do", /^display/).textContent()).toContain("absent: a bare guest has no screen");
    expect(await badge("What it can do", /^snapshot/).getAttribute("title")).toContain("on a simulator only");
    expect(await badge("What it can do", /^console/).getAttribute("title")).toContain("the provider says so");
    await h.getByText("lost").waitFor();
    await accessible();
  });

  test("has machines, and says how somebody changed one", async () => {
    const machines = host("rack-2").getByRole("list", { name: "Machines on rack-2" });
    await machines.getByText("It has 4 CPUs where 2 are wanted").waitFor();
    await accessible();
    fake.put({ ...fake.get("Machine", "ledger"), status: { power: "off" } });
    await machines.getByText("It has 4 CPUs").waitFor({ state: "detached" });
  });

  test("has machines of others: one is adopted after a look, and given back", async () => {
    await host("rack-1").getByText("2 machines are not ours").click();
    await host("rack-1").getByText("Cannot be adopted: it has a device of the host's.").waitFor();
    expect(await page.getByRole("button", { name: "Adopt passthrough…" }).count()).toBe(0);
    await page.getByRole("button", { name: "Adopt Payroll 2019…" }).click();
    await dialog().getByText("4 processors, 8 GiB of memory").waitFor();
    await accessible();
    await dialog().getByLabel("Name here").fill("No Name");
    await dialog().getByText("a name has lower-case letters", { exact: false }).waitFor();
    expect(await dialog().getByRole("button", { name: "Adopt it" }).isDisabled()).toBe(true);
    await dialog().getByLabel("Name here").fill("payroll");
    expect(begun(/adopt$/)).toEqual([]);
    await dialog().getByRole("button", { name: "Adopt it" }).click();
    await dialog().waitFor({ state: "detached" });
    expect(begun(/adopt$/)).toMatchObject([{ body: { name: "payroll", project: "office", id: "11111111-1111-4111-8111-111111111111" } }]);
    await host("rack-1").getByText("1 machine is not ours").waitFor();
    await page.getByRole("button", { name: "Give back payroll" }).click();
    await dialog().getByRole("button", { name: "Give it back" }).click();
    await until(() => !fake.get("Machine", "payroll"));
  });

  test("is drained after everything that stays was named, and taken back", async () => {
    fake.against = (m: { metadata: { name: string } }) => (m.metadata.name === "ledger" ? ["it has no room elsewhere"] : []);
    fake.put({ ...fake.get("Machine", "desk-m"), spec: { ...fake.get("Machine", "desk-m").spec, hypervisor: "rack-2" } });
    await page.getByRole("button", { name: "Drain… rack-2" }).click();
    await dialog().getByRole("heading", { name: "1 can move" }).waitFor();
    await dialog().getByRole("heading", { name: "2 stay" }).waitFor();
    await dialog().getByText("it was adopted: its disks are never touched").waitFor();
    await dialog().getByText("hypervisor rack-3: it has no room elsewhere").waitFor();
    expect(begun(/drain$/)).toEqual([]);
    await accessible();
    await dialog().getByRole("button", { name: "Drain rack-2" }).click();
    await dialog().getByRole("heading", { name: "1 on the way" }).waitFor();
    await dialog().getByRole("button", { name: "Close" }).click();
    await host("rack-2").getByText("nothing new is placed on it").waitFor();
    await host("rack-2").getByRole("link", { name: "on its way to rack-1" }).waitFor();
    await page.getByRole("button", { name: "What is left… rack-2" }).click();
    await dialog().getByRole("heading", { name: "What is left on rack-2" }).waitFor();
    await page.keyboard.press("Escape");
    await page.getByRole("button", { name: "Take rack-2 back into use" }).click();
    await host("rack-2").getByText("ready").waitFor();
    expect(fake.get("Hypervisor", "rack-2", "").spec.drain).toBe(false);
  });
});

describe("a move", () => {
  test("begins from a desktop's card, with every reason against each place before", async () => {
    fake.against = (_: unknown, to: string, { force }: { force: boolean }) => (to === "rack-3" && !force ? ["no drivers for rack-3", "no room there"] : []);
    await signIn();
    await card("Ana's desk").getByRole("button", { name: "Move Ana's desk to…" }).click();
    await dialog().getByText("no drivers for rack-3").waitFor();
    await dialog().getByText("no room there").waitFor();
    await dialog().getByText("goes to rack-2").waitFor();
    await dialog().getByRole("radio", { name: /^rack-3/ }).check();
    expect(await dialog().getByRole("button", { name: "Move it to rack-3" }).isDisabled()).toBe(true);
    await accessible();
    await dialog().getByLabel(/^Although it is not known/).check();
    await dialog().getByLabel("Why, for the journal").fill("to try it");
    expect(begun(/move$/)).toEqual([]);
    await dialog().getByRole("button", { name: "Move it to rack-3" }).click();
    await page.getByRole("heading", { name: "Moves" }).waitFor();
    await page.getByRole("article", { name: "Ana's desk" }).getByText("has it now").waitFor();
    expect(begun(/move$/)).toMatchObject([{ path: "/v1/projects/office/desktops/desk/move", body: { to: "rack-3", force: true, why: "to try it" } }]);
  });

  test("that nothing can take says once what lies with the machine", async () => {
    fake.against = (_: unknown, to: string) => ["it has a volume on rack-2", `${to} is full`];
    await signIn();
    await open("Hypervisors");
    await page.getByRole("button", { name: "Move ledger to…" }).click();
    await dialog().getByText("rack-1 is full").waitFor();
    await dialog().getByText("rack-3 is full").waitFor();
    await dialog().getByRole("heading", { name: "Wherever it is to go" }).waitFor();
    expect(await dialog().getByText("it has a volume on rack-2").count()).toBe(1);
    expect(await dialog().getByRole("button", { name: /^Move it/ }).isDisabled()).toBe(true);
  });

  test("shows its bytes, hashes, error and end before one's eyes, without asking again", async () => {
    for (const o of onTheWay()) fake.put(o);
    await signIn();
    await card("The books").getByRole("progressbar", { name: "Moving: from rack-1 to rack-2" }).waitFor();
    await open("Moves");
    const move = page.getByRole("article", { name: "The books" });
    await move.getByRole("progressbar", { name: /^Disk home: 1.3 GiB of 4 GiB/ }).waitFor();
    await move.getByText("4fd1c7a29be0").waitFor();
    await move.locator('[aria-current="step"]').getByText("Carry and hash its disks").waitFor();
    await accessible();
    await shot("moves");
    const before = requests.length;
    const op = fake.get("Operation", "move-books-m-5e21");
    const disks = [op.status.disks[0], { ...op.status.disks[1], carried: "2Gi" }];
    fake.put({ ...op, status: { ...op.status, disks, waiting: "the agent of rack-2 does not answer" } });
    await move.getByRole("progressbar", { name: /^Disk home: 2 GiB of 4 GiB/ }).waitFor();
    await move.getByText("The agent of rack-2 does not answer.").waitFor();
    const books = fake.get("Machine", "books-m");
    fake.put({ ...books, spec: { ...books.spec, hypervisor: "rack-2" } });
    await move.locator(".end.owns").getByText("rack-2").waitFor();
    fake.put({ ...op, status: { ...op.status, state: "done", ended: ago(0), note: "it stayed on for 30s" } });
    await move.waitFor({ state: "detached" });
    await page.locator("details.move").filter({ hasText: "The books" }).getByText("Moved").waitFor();
    expect(requests.length).toBe(before);
  });

  test("that failed says why, and where the machine is", async () => {
    for (const o of onTheWay()) fake.put(o);
    await signIn();
    await open("Moves");
    const failed = page.locator("details.move").filter({ hasText: "Did not move" });
    await failed.locator("summary").press("Enter");
    await failed.getByText("Boot took longer than 15m0s").waitFor();
    await failed.getByText("It is on rack-1 as it was.").waitFor();
    const moved = page.locator("details.move").filter({ hasText: "Moved" });
    await moved.locator("summary").click();
    await moved.getByText("not verified by a command").waitFor();
    await accessible();
  });

  test("is aborted after a yes, while it can be", async () => {
    fake.put(journal("move-desk-m-1", "desk-m", "rack-1", "rack-2", {}));
    await signIn();
    await open("Moves");
    await page.getByRole("button", { name: "Abort the move of Ana's desk" }).click();
    await dialog().getByText("it will be on rack-1 as it was before").waitFor();
    await page.keyboard.press("Enter"); // the safe answer has the focus
    expect(posts(/abort$/)).toEqual([]);
    await page.getByRole("button", { name: "Abort the move of Ana's desk" }).click();
    await dialog().getByRole("button", { name: "Abort the move" }).click();
    await page.getByText("About to be undone").waitFor();
    expect(posts(/abort$/)).toMatchObject([{ path: "/v1/projects/office/operations/move-desk-m-1/abort" }]);
    expect(await page.getByRole("button", { name: /^Abort/ }).count()).toBe(0);
  });
});

describe("the matrix", () => {
  const figure = (name: string) => page.getByRole("table", { name });
  const row = (table: string, name: string) => figure(table).getByRole("row").filter({ has: page.getByRole("rowheader", { name }) });

  test("says in words what its picture shows", async () => {
    for (const o of trials()) fake.put(o);
    await signIn();
    await open("Matrix");
    await page.getByText("no difference in 28, 0 better, 1 worse").waitFor();
    expect(await row("Boot to agent", "rack-2").textContent()).toContain("worse, +50 % with another release");
    expect(await row("Boot to agent", "rack-3").textContent()).toContain("best");
    expect(await row("Boot to agent", "rack-1").textContent()).toContain("no difference");
    await figure("Random read 4 KiB").getByText("No difference between rack-2 and rack-3; the rest is behind.").waitFor();
    await figure("Answers, 64 bytes").getByText("No difference: their spreads meet").waitFor();
    await page.getByRole("list", { name: "Notes on packets" }).getByText("Its machines join no network.").waitFor();
    await accessible();
    await shot("matrix");
  });

  test("draws spread and median to scale, and the run before", async () => {
    for (const o of trials()) fake.put(o);
    await signIn();
    await open("Matrix");
    const drawn = row("Boot to agent", "rack-1").locator("svg");
    await drawn.waitFor();
    const of = async (part: string, attribute: string) => Number(await drawn.locator(part).getAttribute(attribute));
    const most = 35.4 * 1.5 * 1.04; // the greatest repeat of all
    expect(await of(".median", "width")).toBeCloseTo((1000 * 22.1) / most, 3);
    expect(await of(".spread", "x")).toBeCloseTo((1000 * 22.1 * 0.97) / most, 3);
    expect(await row("Boot to agent", "rack-2").locator(".before").count()).toBe(1);
    await page.getByLabel("Compared with").selectOption("");
    await page.locator(".before").first().waitFor({ state: "detached" });
    expect(await page.getByText("no difference in").count()).toBe(0);
    await page.getByRole("combobox", { name: /^Run/ }).selectOption("20261122-210000");
    await row("Boot to agent", "rack-2").getByText("35.4").waitFor();
  });

  test("says how to measure when nothing was", async () => {
    await signIn();
    await open("Matrix");
    await page.getByText("consort matrix run").waitFor();
    for (const o of trials()) fake.put(o);
    await figure("SHA-256").waitFor();
  });
});

describe("every page of an administrator", () => {
  for (const colorScheme of ["light", "dark"] as const) {
    test(`reads well on a telephone, ${colorScheme}`, async () => {
      for (const o of [...onTheWay(), ...trials()]) fake.put(o);
      await visitor({ viewport: { width: 360, height: 740 }, colorScheme, hasTouch: true, isMobile: true });
      await signIn();
      for (const place of ["Hypervisors", "Moves", "Matrix", "Desktops"]) {
        await open(place);
        await page.getByRole("heading", { level: 1, name: place === "Desktops" ? "Your desktops" : place }).waitFor();
        if (place === "Matrix") await figureThere();
        await fitsAcross();
        await accessible();
      }
    });
  }
  const figureThere = () => page.getByRole("table").first().waitFor();
});
