import { describe, expect, test } from "vitest";
import { at, Fault, sentence, tell } from "../../src/call";
import { Estate } from "../../src/estate";
import { applicationsOf, bytesOf, duration, frameOf, inkOn, queueOf, seatOf, seatsOf, stateOf, stepsOf, titleOf, troubleOf, workOf } from "../../src/telling";
import type { Desktop, Phase, Pool, Resource, Session } from "../../src/words";
import { symbolOf } from "../../src/drawer";

const desk: Desktop = { apiVersion: "consort.dev/v1", kind: "Desktop", metadata: { name: "ana-desk", project: "p" }, spec: { blueprint: "clerk", person: "ana" } };

function planned(context: string): Desktop {
  const plan = { image: "", presentation: { name: "", protocol: "" }, context, guest: {}, hardware: { cpus: 1, memory: "1Gi", disks: [] } };
  return { ...desk, status: { plan } };
}

function estateOf(...objects: object[]): Estate {
  const e = new Estate();
  for (const o of objects) e.put(o as Resource);
  return e;
}

const named = (kind: string, name: string, spec: object, status = {}) => ({ kind, metadata: { name, project: "p" }, spec, status });

function session(phases: Phase[]): Session {
  return { apiVersion: "consort.dev/v1", kind: "Session", metadata: { name: "s", project: "p" }, spec: { desktop: "d", person: "ana" }, status: { phases } };
}

describe("phases", () => {
  const t0 = Date.parse("2026-01-01T00:00:00Z");
  test("are done, now or next, with the time they took", () => {
    const got = stepsOf(
      session([
        { name: "place", began: "2026-01-01T00:00:00Z", ended: "2026-01-01T00:00:01.500Z" },
        { name: "first-frame", text: "waiting for pixels", began: "2026-01-01T00:00:02Z" },
        { name: "apps" },
      ]),
      t0 + 5000,
    );
    expect(got).toEqual([
      { name: "Place", text: "", state: "done", seconds: 1.5 },
      { name: "First frame", text: "waiting for pixels", state: "now", seconds: 3 },
      { name: "Apps", text: "", state: "next", seconds: undefined },
    ]);
  });

  test("never took less than nothing, even when the clocks differ", () => {
    expect(stepsOf(session([{ name: "a", began: "2026-01-01T00:00:09Z" }]), t0)[0]!.seconds).toBe(0);
  });

  test("may be absent", () => expect(stepsOf(undefined, t0)).toEqual([]));
});

test("durations are short", () => {
  expect([0.04, 9.9, 9.96, 59.4, 125].map(duration)).toEqual(["0.0 s", "9.9 s", "10 s", "59 s", "2 min 5 s"]);
});

describe("a pool", () => {
  const pool: Pool = { apiVersion: "consort.dev/v1", kind: "Pool", metadata: { name: "counter", project: "p" }, spec: { blueprint: "task", maximum: 9, warm: 2 } };
  const t0 = Date.parse("2026-01-01T00:00:00Z");
  const queued = (queue: object): Session => ({ ...session([]), status: { queue: { place: 3, of: 9, ...queue } } }) as Session;

  test("says how likely a seat is", () => {
    const said = (status: object) => seatsOf({ ...pool, status }).text;
    expect([said({}), said({ warm: 1 }), said({ warm: 3 }), said({ warm: 1, queue: 1 }), said({ queue: 12 })]).toEqual([
      "Made when you ask", "1 seat is ready", "3 seats are ready", "1 person waits", "12 persons wait",
    ]);
  });

  test("says a place and a time in the queue, and when it is a guess", () => {
    const wait = (q: object) => queueOf(queued(q), t0)?.wait;
    expect(wait({})).toBe("Nobody can say yet how long it takes");
    expect(wait({ expected: "2026-01-01T00:00:42Z" })).toBe("About 40 seconds");
    expect(wait({ expected: "2026-01-01T00:07:10Z" })).toBe("About 7 minutes");
    expect(wait({ expected: "2026-01-01T03:00:00Z" })).toBe("About 3 hours");
    expect(wait({ expected: "2025-12-31T23:59:00Z" })).toBe("Any moment now");
    expect(queueOf(queued({ expected: "2026-01-01T00:07:10Z", assumed: true }), t0)).toMatchObject({ place: 3, of: 9, remark: "A guess: nothing was measured here yet" });
    expect(queueOf(session([]), t0)).toBeUndefined();
  });

  test("shows the person's own seat and nobody else's", () => {
    const seat = (name: string, person: string) => ({ ...desk, metadata: { name, project: "p" }, spec: { blueprint: "task", pool: "counter", person } });
    const e = estateOf(seat("counter-1", "ben"), seat("counter-2", "ana"), { ...seat("counter-3", ""), spec: { blueprint: "task", pool: "counter" } });
    expect(seatOf(e, pool, "ana")?.metadata.name).toBe("counter-2");
    expect(seatOf(e, pool, "eve")).toBeUndefined();
    expect(seatOf(e, pool, undefined)).toBeUndefined();
  });
});

describe("a desktop", () => {
  test("without a status is off", () => expect(stateOf(desk)).toEqual({ text: "Off", tone: "rest" }));

  test("that is blocked says why, and only then", () => {
    const conditions = [{ type: "Ready", status: "False" as const, text: "image x is not there; import it" }];
    expect(troubleOf({ ...desk, status: { state: "blocked", conditions } })).toBe("Image x is not there; import it.");
    expect(troubleOf({ ...desk, status: { state: "starting", conditions } })).toBe("");
  });

  test("has the context of its plan before that of its blueprint", () => {
    const e = estateOf(
      named("Context", "work", { title: "Work", colour: "#2e6f8e", trust: 2 }),
      named("Context", "vault", { colour: "#8c2f39", trust: 3 }),
      named("Blueprint", "clerk", { context: "vault" }),
    );
    expect(frameOf(e, desk)).toMatchObject({ title: "Vault", colour: "#8c2f39", clipboard: {} });
        expect(frameOf(e, planned("work")).title).toBe("Work");
  });

  test("keeps a frame when its context is not for the person to read, and claims no policy", () => {
        expect(frameOf(estateOf(), planned("secret"))).toMatchObject({ title: "Secret", clipboard: undefined });
  });

  test("takes no colour that is not one", () => {
    const e = estateOf(named("Context", "work", { colour: "red;} body{display:none" }), named("Blueprint", "clerk", { context: "work" }));
    expect(frameOf(e, desk).colour).toMatch(/^#[0-9a-f]{6}$/);
  });

  test("shows only the applications that the person may see", () => {
    const e = estateOf(
      named("Blueprint", "clerk", { context: "work", applications: [{ name: "writer" }, { name: "hidden" }] }),
      named("Application", "writer", { title: "Writer" }),
    );
    expect(applicationsOf(e, desk).map((a) => a.spec.title)).toEqual(["Writer"]);
  });

  test("is called what its person calls it, else what its blueprint is called", () => {
    const e = estateOf(named("Blueprint", "clerk", { title: "Clerk" }));
    expect(titleOf(e, { ...desk, spec: { ...desk.spec, title: "Mine" } })).toBe("Mine");
    expect(titleOf(e, desk)).toBe("Clerk");
    expect(titleOf(estateOf(), desk)).toBe("Ana-desk");
  });

  test("tells of the work it waits for: the image first, then a layer", () => {
    const work = { phase: "packages", step: 2, steps: 5, percent: 40 };
    const blueprint = named("Blueprint", "clerk", { image: "deb", applications: [{ name: "writer" }] });
    const writer = named("Application", "writer", { title: "Writer" }, { layers: [{ version: "1", image: "", work }] });
    expect(workOf(estateOf(blueprint, writer, named("Image", "deb", { title: "Debian" }, { work })), desk)?.what).toBe("Debian");
    expect(workOf(estateOf(blueprint, writer, named("Image", "deb", {})), desk)?.what).toBe("Writer");
    expect(workOf(estateOf(blueprint), desk)).toBeUndefined();
  });
});

test("text on a context's colour is the one that reads better", () => {
  expect(inkOn("#2e6f8e")).toBe("#ffffff");
  expect(inkOn("#f2c14e")).toBe("#000000");
});

test("amounts are read as the API writes them", () => {
  expect([undefined, "", "77", "64Ki", "1Mi", "x"].map((t) => bytesOf(t, 5))).toEqual([5, 5, 77, 65536, 1048576, 5]);
});

describe("an error", () => {
  test("is a sentence and a next step", () => {
    expect(tell(new Fault("conflict", "lend desk-7: already with ana"))).toEqual({
      what: "Lend desk-7: already with ana.",
      next: "Look at it again, then try once more.",
    });
  });
  test("of a kind we do not know is still told", () => expect(tell(new Fault("novel", "")).next).not.toBe(""));
  test("that says when to come back says it on", () => expect(tell(new Fault("rate-limited", "", [], 30)).next).toContain("30 seconds"));
  test("of ours is not shown as it is", () => expect(tell(new TypeError("x is undefined")).what).toBe("Consort made a mistake."));
});

test("sentences keep the stop they have", () => {
  expect([sentence("done"), sentence("Really?"), sentence("")]).toEqual(["Done.", "Really?", ""]);
});

test("names cannot leave their place in a path", () => {
  expect(at("p", "desktops", "../x?y", "connect")).toBe("/v1/projects/p/desktops/..%2Fx%3Fy/connect");
});

test("characters become X11 key symbols", () => {
  expect(["a", "é", "€"].map(symbolOf)).toEqual([0x61, 0xe9, 0x10020ac]);
});
