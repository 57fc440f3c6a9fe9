import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { Estate } from "../../src/estate";
import { Visit, type ScreenEvents, type Stage } from "../../src/visit";
import type { Session } from "../../src/words";

// A plane of one desktop behind fetch, a screen that the test opens and drops.
class Rig {
  estate = new Estate();
  calls: string[] = [];
  stages: Stage[] = [];
  protocols: string[][] = [];
  screens: ScreenEvents[] = [];
  closed = 0;
  fetched = 0;
  version = 1;
  session = this.at("waiting");
  visit: Visit;
  done: Promise<void>;

  paths: string[] = [];

  constructor(viewers = ["rfb"], readonly answers: Record<string, () => Response> = {}, pool?: string) {
    vi.stubGlobal("fetch", async (url: string, init: RequestInit) => {
      this.paths.push(url);
      const act = `${init.method} ${url.split("/").at(-1)}`;
      this.calls.push(act);
      if (this.answers[act]) return this.answers[act]!();
      if (act.endsWith("connect")) return Response.json(this.session);
      if (act.endsWith("ticket")) return Response.json({ ticket: `t${this.protocols.length}` });
      return Response.json({});
    });
    this.visit = new Visit({
      estate: this.estate,
      project: "p",
      desktop: pool ? "" : "d",
      ...(pool ? { pool } : {}),
      target: {} as HTMLElement,
      url: "ws://x/v1/tunnel",
      viewers: Object.fromEntries(
        viewers.map((v) => [
          v,
          async () => {
            this.fetched++;
            return (_t: HTMLElement, _u: string, protocols: string[], on: ScreenEvents) => {
              this.protocols.push(protocols);
              this.screens.push(on);
              const close = () => {
                this.closed++;
                on.closed(true);
              };
              return { close } as never;
            };
          },
        ]),
      ),
      wait: async () => undefined,
      now: () => 0,
      on: (s) => this.stages.push(s),
      clipboard: () => undefined,
    });
    this.estate.setLink({ live: true, tries: 0, next: 0 });
    this.estate.put({
      apiVersion: "consort.dev/v1",
      kind: "Desktop",
      metadata: { name: "d", project: "p", version: 1 },
      spec: { blueprint: "b", person: "ana", power: "on" },
    });
    this.done = this.visit.run();
  }

  at(state: "waiting" | "ready" | "open" | "ended", spec = {}): Session {
    const metadata = { name: "s1", project: "p", version: this.version++ };
    return { apiVersion: "consort.dev/v1", kind: "Session", metadata, spec: { desktop: "d", person: "ana", ...spec }, status: { state, way: { name: "x", protocol: "rfb" }, because: "why not" } };
  }

  move(s: Session): void {
    this.session = s;
    this.estate.take({ type: "put", version: s.metadata.version!, object: s });
  }

  get names(): string[] {
    return this.stages.map((s) => s.name).filter((n, i, all) => n !== all[i - 1]);
  }
}

async function until(what: () => boolean): Promise<void> {
  await vi.waitFor(() => expect(what()).toBe(true));
}

describe("a visit", () => {
  let s: Rig;
  beforeEach(() => {
    s = new Rig();
  });
  afterEach(async () => {
    await s.visit.leave(false);
    await s.done;
    vi.unstubAllGlobals();
  });

  test("waits for the session, then opens it with a ticket that is in no address", async () => {
    await until(() => s.names.includes("waiting"));
    expect(s.calls).toEqual(["POST connect"]);
    expect(s.fetched).toBe(1); // the viewer is there before it is needed
    s.move(s.at("ready"));
    await until(() => s.screens.length === 1);
    expect(s.protocols[0]).toEqual(["consort.v1", "ticket.t0"]);
    s.screens[0]!.open();
    expect(s.names).toEqual(["waiting", "opening", "open"]);
  });

  test("opens again with a fresh ticket after a drop, without asking the person", async () => {
    s.move(s.at("ready"));
    await until(() => s.screens.length === 1);
    s.screens[0]!.open();
    s.screens[0]!.closed(true);
    await until(() => s.screens.length === 2);
    s.screens[1]!.open();
    expect(s.protocols[1]).toEqual(["consort.v1", "ticket.t1"]);
    expect(s.names).toEqual(["waiting", "opening", "open", "dropped", "opening", "open"]);
  });

  test("goes on trying while the plane is away after a drop", async () => {
    s.move(s.at("ready"));
    await until(() => s.screens.length === 1);
    s.screens[0]!.open();
    let refused = 3;
    s.answers["POST connect"] = () => {
      if (refused-- > 0) throw new TypeError("refused");
      return Response.json(s.session);
    };
    s.screens[0]!.closed(true);
    await until(() => s.screens.length === 2);
    expect(refused).toBeLessThan(0);
  });

  test("does not come back when the session was ended on purpose", async () => {
    s.move(s.at("ready"));
    await until(() => s.screens.length === 1);
    s.screens[0]!.open();
    s.move(s.at("ended", { end: true }));
    s.screens[0]!.closed(true);
    await s.done;
    expect(s.stages.at(-1)).toEqual({ name: "ended", because: "why not" });
    expect(s.calls.filter((c) => c === "POST connect")).toHaveLength(1);
  });

  test("does not turn a desktop on again that was turned off", async () => {
    s.move(s.at("ready"));
    await until(() => s.screens.length === 1);
    s.screens[0]!.open();
    const d = s.estate.get("Desktop", "p", "d")!;
    s.estate.put({ ...d, metadata: { ...d.metadata, version: 2 }, spec: { ...d.spec, power: "off" } });
    s.screens[0]!.closed(true);
    await s.done;
    expect(s.names.at(-1)).toBe("ended");
    expect(s.calls.filter((c) => c === "POST connect")).toHaveLength(1);
  });

  test("says why a session ended that was never ready", async () => {
    s.move(s.at("ended"));
    await s.done;
    expect(s.stages.at(-1)).toEqual({ name: "ended", because: "why not" });
  });

  test("ends the session when the person cancels, and asks for no ticket afterwards", async () => {
    await until(() => s.names.includes("waiting"));
    await s.visit.leave(true);
    s.move(s.at("ready"));
    await s.done;
    expect(s.calls).toEqual(["POST connect", "PATCH s1"]);
  });

  test("opens no screen with a ticket that came after the person had left", async () => {
    s.answers["POST ticket"] = () => {
      void s.visit.leave(false);
      return Response.json({ ticket: "late" });
    };
    s.move(s.at("ready"));
    await s.done;
    expect(s.calls).toContain("POST ticket");
    expect(s.screens).toHaveLength(0);
  });

  test("closes the screen when it is left", async () => {
    s.move(s.at("ready"));
    await until(() => s.screens.length === 1);
    await s.visit.leave(false);
    await s.done;
    expect(s.closed).toBe(1);
    expect(s.calls).not.toContain("PATCH s1");
  });
});

describe("a visit that cannot be", () => {
  afterEach(() => vi.unstubAllGlobals());

  test("fails at once with the plane's reason", async () => {
    const full = () => Response.json({ kind: "no-capacity", detail: "no host has 4Gi left" }, { status: 507 });
    const s = new Rig(["rfb"], { "POST connect": full });
    await s.done;
    expect(s.stages.at(-1)).toMatchObject({ name: "failed", fault: { kind: "no-capacity" } });
  });

  test("points to a native viewer when no page can show the protocol", async () => {
    const s = new Rig([]);
    s.move(s.at("ready"));
    await s.done;
    expect(s.names).toEqual(["waiting", "elsewhere"]);
    expect(s.calls).not.toContain("POST ticket");
  });
});

describe("a visit to a pool", () => {
  test("waits in the queue, and opens whichever seat it gets", async () => {
    const s = new Rig(["rfb"], {}, "counter");
    await until(() => s.names.includes("waiting"));
    expect(s.paths[0]).toBe("/v1/projects/p/pools/counter/connect");
    s.move({ ...s.at("waiting", { desktop: "", pool: "counter" }), status: { state: "waiting", queue: { place: 3, of: 9 } } });
    await until(() => s.stages.some((st) => st.name === "waiting" && st.session?.status?.queue?.place === 3));
    s.move(s.at("ready", { desktop: "d", pool: "counter" }));
    await until(() => s.screens.length === 1);
    s.screens[0]!.open();
    expect(s.names).toEqual(["waiting", "opening", "open"]);
    await s.visit.leave(true);
    await s.done;
    expect(s.calls.at(-1)).toBe("PATCH s1"); // ends the session: the seat is given back
    vi.unstubAllGlobals();
  });
});
