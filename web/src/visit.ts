// A visit is one person's time on one desktop: asked for, waited for, opened,
// dropped and opened again, ended. It knows no DOM beyond the element that a
// screen is drawn into.
import { at, call, Fault } from "./call";
import type { Estate } from "./estate";
import { backoff } from "./watch";
import type { Session, Ticket } from "./words";

export interface Screen {
  focus(): void;
  /** leave gives the keyboard back to the page and lets go of held keys. */
  leave(): void;
  secureAttention(): void;
  key(keysym: number, code: string | null): void;
  paste(text: string): void;
  /** fit scales the picture to the window; otherwise it has its own size. */
  fit(yes: boolean): void;
  picture(): string | undefined;
  close(): void;
}

export interface ScreenEvents {
  open(): void;
  closed(wasOpen: boolean): void;
  refused(): void;
  clipboard(text: string): void;
}

export type OpenScreen = (target: HTMLElement, url: string, protocols: string[], on: ScreenEvents) => Screen;

export type Stage =
  | { name: "waiting"; session?: Session } // asked for, being brought up
  | { name: "opening"; session: Session } // ready, the picture is on its way
  | { name: "open"; session: Session }
  | { name: "dropped"; session: Session | undefined; tries: number; next: number }
  | { name: "elsewhere"; session: Session } // no way of showing it in a page
  | { name: "ended"; because: string }
  | { name: "failed"; fault: unknown };

export interface VisitOptions {
  estate: Estate;
  project: string;
  desktop: string;
  pool?: string; // in place of a desktop: whichever seat of it we get
  presentation?: string;
  target: HTMLElement;
  url: string; // of the gateway's tunnel
  /** viewers by the protocol that they speak. */
  viewers: Record<string, () => Promise<OpenScreen>>;
  wait: (ms: number, signal: AbortSignal) => Promise<void>;
  now: () => number;
  on: (stage: Stage) => void;
  clipboard: (text: string) => void;
}

/** Why a screen closed: a wrong ticket, a network that broke, or our own doing. */
type Closing = "refused" | "dropped";

// A screen that stayed open this long was a success: trying starts anew.
const settled = 10_000;
const moment = 400;
const patience = 40; // tries, about ten minutes

export class Visit {
  readonly #o: VisitOptions;
  readonly #stop = new AbortController();
  #session: Session | undefined;
  screen: Screen | undefined;

  constructor(o: VisitOptions) {
    this.#o = o;
  }

  /** run goes on until the visit has ended, failed or been left. */
  async run(): Promise<void> {
    let tries = 0;
    // Those that will be wanted are fetched while the desktop comes up; what fails is told when it is needed.
    for (const viewer of Object.values(this.#o.viewers)) void viewer().catch(() => undefined);
    for (;;) {
      const began = this.#o.now();
      try {
        const over = await this.#open();
        if (over || this.#stop.signal.aborted) return;
      } catch (e) {
        if (this.#stop.signal.aborted) return;
        if (!passing(e) || tries >= patience || (tries === 0 && !this.#session) || this.#gone(e)) {
          this.#o.on({ name: "failed", fault: e });
          return;
        }
      }
      if (this.#o.now() - began > settled) tries = 0;
      const ms = backoff(tries++, Math.random());
      this.#o.on({ name: "dropped", session: this.#session, tries, next: this.#o.now() + ms });
      await this.#o.wait(ms, this.#stop.signal);
      if (this.#stop.signal.aborted) return;
    }
  }

  /** leave closes the screen; end also ends the session, so that nothing waits for us. */
  async leave(end: boolean): Promise<void> {
    this.#stop.abort();
    this.screen?.close();
    const s = this.#session;
    if (!end || !s) return;
    await call("PATCH", at(s.metadata.project, "sessions", s.metadata.name), { spec: { end: true } }).catch(() => undefined);
  }

  // One way from Connect to a closed screen; true when there is no more to do.
  // The plane returns a live session again, so asking each time is right both
  // at first and after a drop.
  async #open(): Promise<boolean> {
    const o = this.#o;
    const path = o.pool ? at(o.project, "pools", o.pool, "connect") : at(o.project, "desktops", o.desktop, "connect");
    if (!this.#session) o.on({ name: "waiting" });
    const asked = await call<Session>("POST", path, { presentation: o.presentation ?? "" }, this.#stop.signal);
    this.#session = asked;
    o.estate.put(asked);
    const session = await this.#ready(asked);
    if (!session) return true;
    const protocol = session.status?.way?.protocol ?? "";
    const viewer = o.viewers[protocol];
    if (!viewer) {
      o.on({ name: "elsewhere", session });
      return true;
    }
    o.on({ name: "opening", session });
    const open = await viewer();
    const ticket = await call<Ticket>(
      "POST", at(o.project, "sessions", session.metadata.name, "ticket"), {}, this.#stop.signal,
    );
    if (this.#stop.signal.aborted) return true;
    await this.#show(open, ticket.ticket, session);
    // The socket may close before the watch tells why; a moment spares a
    // session that was ended on purpose from being asked for again.
    await o.wait(moment, this.#stop.signal);
    return this.#over(session);
  }

  /** #ready waits until the session may be opened. It returns nothing when it ended instead. */
  #ready(asked: Session): Promise<Session | undefined> {
    const { estate, on } = this.#o;
    const signal = this.#stop.signal;
    return new Promise((resolve) => {
      let last: Session | undefined;
      const finish = (s: Session | undefined) => {
        unsubscribe();
        signal.removeEventListener("abort", quit);
        resolve(s);
      };
      const quit = () => finish(undefined);
      const look = () => {
        const s = estate.get("Session", asked.metadata.project, asked.metadata.name) ?? last ?? asked;
        if (s === last) return;
        last = s;
        this.#session = s;
        const state = s.status?.state ?? "waiting";
        if (state === "ready" || state === "open") return finish(s);
        if (state === "ended") {
          on({ name: "ended", because: s.status?.because ?? "" });
          return finish(undefined);
        }
        on({ name: "waiting", session: s });
      };
      const unsubscribe = estate.subscribe(look);
      signal.addEventListener("abort", quit);
      look();
    });
  }

  #show(open: OpenScreen, ticket: string, session: Session): Promise<Closing> {
    const o = this.#o;
    return new Promise((resolve) => {
      let why: Closing = "dropped";
      this.screen = open(o.target, o.url, ["consort.v1", `ticket.${ticket}`], {
        open: () => o.on({ name: "open", session }),
        clipboard: o.clipboard,
        refused: () => (why = "refused"),
        closed: () => {
          this.screen = undefined;
          resolve(why);
        },
      });
    });
  }

  #gone(e: unknown): boolean {
    const { estate, project, desktop, pool } = this.#o;
    const there = pool ? estate.get("Pool", project, pool) : estate.get("Desktop", project, desktop);
    return e instanceof Fault && e.kind === "not-found" && estate.link.live && !there;
  }

  /** #over reports whether the visit was ended on purpose rather than by a broken connection. */
  #over(session: Session): boolean {
    const { estate, project, on } = this.#o;
    if (!estate.link.live) return false; // what we know is old
    const s = estate.get("Session", session.metadata.project, session.metadata.name);
    const d = estate.get("Desktop", project, session.spec.desktop ?? "");
    let why = "";
    if (!d) why = "the desktop was removed";
    else if (d.spec.power === "off") why = "the desktop was turned off";
    else if (!s || s.spec.end) why = "it was ended from elsewhere";
    if (why) on({ name: "ended", because: s?.status?.because || why });
    return why !== "";
  }
}

/** passing are the faults that may be gone at the next try. */
function passing(e: unknown): boolean {
  return (
    e instanceof Fault &&
    ["unreachable", "unavailable", "busy", "conflict", "outcome-unknown", "not-found", "rate-limited", "internal"].includes(e.kind)
  );
}

/** wait sleeps, or returns at once when the signal comes. */
export function wait(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done);
  });
}
