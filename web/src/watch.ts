// One watch for all pages, and one more for what a single page needs: browsers
// give an address few connections.
import { Fault, send } from "./call";
import type { Estate } from "./estate";
import type { Kind, Resource, WatchEvent } from "./words";

/** lines yields the JSON of each line of a body. A last line without its end is not a line. */
export async function* lines(body: ReadableStream<Uint8Array>): AsyncGenerator<WatchEvent> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      rest += decoder.decode(value, { stream: true });
      let end: number;
      while ((end = rest.indexOf("\n")) >= 0) {
        const line = rest.slice(0, end).trim();
        rest = rest.slice(end + 1);
        if (line) yield JSON.parse(line) as WatchEvent;
      }
    }
  } finally {
    reader.cancel().catch(() => undefined);
  }
}

/** backoff is how long to wait before try n (from 0), in milliseconds, given a number from 0 to 1. */
export function backoff(n: number, random: number): number {
  const full = Math.min(15_000, 250 * 2 ** n);
  return Math.round(full / 2 + (full / 2) * random);
}

// The plane sends a bookmark every ten seconds, so silence for longer than
// two of them means that the connection is dead and nobody said so.
const silence = 25_000;

export interface FollowOptions {
  estate: Estate;
  kinds: Kind[];
  signal: AbortSignal;
  wait: (ms: number, signal: AbortSignal) => Promise<void>;
  signedOut: () => void;
}

/** follow keeps the estate like the plane's until the signal. */
export async function follow(o: FollowOptions): Promise<void> {
  let tries = 0;
  let version = 0; // 0 asks for everything
  while (!o.signal.aborted) {
    try {
      version = await once(o, version, () => (tries = 0));
    } catch (e) {
      if (o.signal.aborted) return;
      if (e instanceof Fault && e.kind === "unauthenticated") {
        o.signedOut();
        return;
      }
      // Whatever the plane does not like about our version is cured by beginning anew.
      if (e instanceof Fault && e.kind !== "unreachable" && e.kind !== "unavailable") version = 0;
    }
    if (o.signal.aborted) return;
    const ms = backoff(tries++, Math.random());
    o.estate.setLink({ live: false, tries, next: Date.now() + ms });
    await o.wait(ms, o.signal);
  }
}

/** once reads one connection until it ends and returns the version to go on from. */
async function once(o: FollowOptions, from: number, live: () => void): Promise<number> {
  let version = from;
  // Without a version the plane tells everything there is, then a bookmark.
  let listing: Resource[] | undefined = from ? undefined : [];
  const stop = new AbortController();
  const quit = () => stop.abort();
  o.signal.addEventListener("abort", quit);
  let guard = setTimeout(quit, silence);
  try {
    const q = `kinds=${o.kinds.join(",")}` + (from ? `&version=${from}` : "");
    const answer = await send("GET", `/v1/watch?${q}`, undefined, stop.signal);
    if (!listing) o.estate.setLink({ live: true, tries: 0, next: 0 });
    for await (const e of lines(answer.body!)) {
      live();
      clearTimeout(guard);
      guard = setTimeout(quit, silence);
      if (!listing) {
        o.estate.take(e);
        version = Math.max(version, e.version);
      } else if (e.type === "put" && e.object) {
        listing.push(e.object);
      } else if (e.type === "bookmark") {
        o.estate.replace(listing);
        o.estate.setLink({ live: true, tries: 0, next: 0 });
        listing = undefined;
        version = e.version;
      }
    }
  } catch (e) {
    if (!stop.signal.aborted && e instanceof Fault) throw e;
    // A broken body or our own guard: go on from where we are.
  } finally {
    clearTimeout(guard);
    o.signal.removeEventListener("abort", quit);
  }
  return version;
}
