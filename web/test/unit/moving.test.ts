import { describe, expect, test } from "vitest";
import { nameFrom } from "../../src/adopt";
import { Estate } from "../../src/estate";
import { amount, driftOf, freightOf, journalOf, mayAbort, movesOf, outcomeOf, progressOf, sharedBy, subjectOf } from "../../src/moving";
import type { Machine, Operation, Resource } from "../../src/words";

type Move = NonNullable<Operation["spec"]["move"]>;

function move(status: Operation["status"], order: Partial<Move> = {}, spec: Partial<Operation["spec"]> = {}): Operation {
  return {
    apiVersion: "consort.dev/v1", kind: "Operation", metadata: { name: "m", project: "p", created: "2026-01-01T00:00:00Z" },
    spec: { verb: "move", on: { kind: "Machine", project: "p", name: "box" }, move: { from: "a", to: "b", power: "on", ...order }, ...spec },
    ...(status ? { status } : {}),
  };
}

const t0 = Date.parse("2026-01-01T00:00:00Z");
const at = (s: number) => new Date(t0 + 1000 * s).toISOString();
const done = (...names: string[]) => names.map((name, i) => ({ name, began: at(i), ended: at(i + 1) }));

describe("the journal of a move", () => {
  test("has the steps it took and those to come", () => {
    const got = journalOf(move({ steps: [...done("stop", "prepare"), { name: "copy", began: at(2) }] }), t0 + 7000);
    expect(got.map((s) => `${s.name} ${s.state} ${s.seconds ?? ""}`.trim())).toEqual([
      "stop done 1", "prepare done 1", "copy now 5", "place next", "shelve next", "boot next", "verify next",
    ]);
  });

  test("of a running machine hands it over, of one that is off turns it off again, and untried stops once it is there", () => {
    const names = (o: Partial<Move>) => journalOf(move({}, o), t0).map((s) => s.name);
    expect(names({ live: true })).toEqual(["stop", "prepare", "depart", "place", "shelve", "boot", "verify"]);
    expect(names({ power: "off" }).slice(-2)).toEqual(["verify", "restore"]);
    expect(names({ power: "off", unverified: true }).at(-1)).toBe("shelve");
  });

  test("that is undone has nothing to come but the way back", () => {
    const o = move({ error: "no room", state: "undoing", steps: [...done("stop"), { name: "return", began: at(1) }] });
    expect(journalOf(o, t0 + 3000)).toMatchObject([{ name: "stop", state: "done" }, { name: "return", state: "now", seconds: 2 }]);
  });

  test("that fails has nothing to come, and the step that broke is not done", () => {
    const o = move({ error: "no room", state: "failed", steps: [...done("stop"), { name: "prepare", began: at(1) }], ended: at(4) });
    expect(journalOf(o, t0 + 99_000)).toMatchObject([{ state: "done" }, { name: "prepare", state: "next", seconds: 3 }]);
  });
});

test("moves under way come first, then the newest; other acts are no moves", () => {
  const e = new Estate();
  const named = (name: string, created: string, o: Operation) => ({ ...o, metadata: { name, project: "p", created } });
  for (const o of [
    named("old", at(0), move({ ended: at(1) })), named("new", at(50), move({ ended: at(60) })), named("going", at(20), move({})),
    named("other", at(99), move({}, {}, { verb: "rebuild" })),
  ]) e.put(o);
  expect(movesOf(e).map((o) => o.metadata.name)).toEqual(["going", "new", "old"]);
});

test("a move is told by how it stands", () => {
  expect(outcomeOf(move({ state: "running" })).text).toBe("Moving");
  expect(outcomeOf(move({ state: "running" }, {}, { abort: true })).text).toBe("About to be undone");
  expect(outcomeOf(move({ state: "undoing", error: "x" })).text).toBe("Being undone");
  expect(outcomeOf(move({ state: "done", ended: at(1) }))).toEqual({ text: "Moved", tone: "good" });
  expect(outcomeOf(move({ state: "failed", ended: at(1) }))).toEqual({ text: "Did not move", tone: "bad" });
  expect(outcomeOf(move({ state: "failed", ended: at(1) }, {}, { abort: true })).text).toBe("Aborted");
});

describe("a move can be aborted", () => {
  test("until its guest was seen alive, and once", () => {
    expect(mayAbort(move({ steps: done("stop") }))).toBe(true);
    expect(mayAbort(move({ steps: done("stop", "verify") }))).toBe(false);
    expect(mayAbort(move({}, {}, { abort: true }))).toBe(false);
    expect(mayAbort(move({ error: "x" }))).toBe(false);
    expect(mayAbort(move({ ended: at(1) }))).toBe(false);
  });
  test("only until it is placed when it runs on the way", () => {
    expect(mayAbort(move({ steps: done("place") }, { live: true }))).toBe(false);
    expect(mayAbort(move({ steps: done("place") }))).toBe(true);
  });
});

describe("a disk on its way", () => {
  const disk = { name: "home", size: "4Gi", carried: "1Gi", began: at(0) };
  test("says its bytes and its speed", () => {
    expect(freightOf(disk, t0 + 8000)).toMatchObject({ percent: 25, text: "1 GiB of 4 GiB, 128 MiB a second" });
  });
  test("is whole only once it is there and hashed, though zeros were not sent", () => {
    expect(freightOf({ ...disk, carried: "4Gi" }, t0).percent).toBe(99);
    expect(freightOf({ ...disk, ended: at(2), digest: "sha256:ab" }, t0)).toMatchObject({ percent: 100, digest: "sha256:ab" });
  });
  test("that did not begin has no speed", () => expect(freightOf({ name: "x", size: "1Gi" }, t0).text).toBe("0 bytes of 1 GiB"));
});

test("progress counts steps alike and copying by its bytes", () => {
  const disks = [{ name: "a", size: "1Gi", ended: at(1) }, { name: "b", size: "1Gi", carried: "512Mi", began: at(0) }];
  expect(progressOf(move({}))).toBe(0);
  expect(progressOf(move({ steps: [...done("stop", "prepare"), { name: "copy", began: at(2) }], disks }))).toBe(Math.round((100 * 2.75) / 7));
  expect(progressOf(move({ steps: done("stop", "prepare", "copy", "place", "shelve", "boot", "verify") }))).toBe(100);
});

test("amounts are short", () => {
  expect([0, 900, 1536, 1.5 * 1024 ** 3, 1.02 * 1024 ** 2, 200.4 * 1024 ** 2].map(amount)).toEqual(["0 bytes", "900 bytes", "1.5 KiB", "1.5 GiB", "1 MiB", "200 MiB"]);
});

test("reasons that every hypervisor gives are the machine's own", () => {
  const reply = (...obstacles: string[]) => ({ from: "a", machine: { kind: "Machine", name: "m" }, obstacles });
  expect(sharedBy([reply("adopted", "no room"), reply("adopted"), reply("x", "adopted")])).toEqual(["adopted"]);
  expect(sharedBy([reply("adopted"), reply()])).toEqual([]);
  expect(sharedBy([])).toEqual([]);
});

test("a machine is called as its desktop", () => {
  const e = new Estate();
  const put = (kind: string, name: string, spec: object, owner?: object) => e.put({ kind, metadata: { name, project: "p", owner }, spec } as unknown as Resource);
  put("Machine", "desk-m", {}, { kind: "Desktop", name: "desk", project: "p" });
  put("Desktop", "desk", { title: "Ana's desk" });
  put("Machine", "payroll", {});
  expect(["desk-m", "payroll", "gone"].map((n) => subjectOf(e, "p", n))).toEqual(["Ana's desk", "payroll", "gone"]);
});

test("drift is what the condition says, while it holds", () => {
  const machine = (status: string) => ({ status: { conditions: [{ type: "Drifted", status, text: "it has 4 CPUs" }] } }) as unknown as Machine;
  expect([machine("True"), machine("False"), undefined].map(driftOf)).toEqual(["It has 4 CPUs.", "", ""]);
});

test("a vendor's name becomes one that can be had here", () => {
  expect(["Payroll 2019", "a_b", "--x--", "ok-1"].map(nameFrom)).toEqual(["payroll-2019", "a-b", "x", "ok-1"]);
});
