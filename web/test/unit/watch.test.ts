import { afterEach, describe, expect, test, vi } from "vitest";
import { Estate } from "../../src/estate";
import { backoff, follow, lines } from "../../src/watch";
import type { Desktop, WatchEvent } from "../../src/words";

function body(...parts: string[]): ReadableStream<Uint8Array> {
  return new ReadableStream({
    start(c) {
      for (const p of parts) c.enqueue(new TextEncoder().encode(p));
      c.close();
    },
  });
}

async function read(...parts: string[]): Promise<WatchEvent[]> {
  const all: WatchEvent[] = [];
  for await (const e of lines(body(...parts))) all.push(e);
  return all;
}

function desktop(name: string, version: number): Desktop {
  return { apiVersion: "consort.dev/v1", kind: "Desktop", metadata: { name, project: "p", version }, spec: { blueprint: "b", person: "ana" } };
}

const put = (name: string, version: number) => JSON.stringify({ type: "put", version, object: desktop(name, version) }) + "\n";
const bookmark = (version: number) => JSON.stringify({ type: "bookmark", version }) + "\n";

describe("lines", () => {
  test("are put together again however the network cut them", async () => {
    const whole = put("ä-desk", 3) + "\n" + bookmark(4);
    const bytes = new TextEncoder().encode(whole);
    for (let at = 1; at < bytes.length; at++) {
      const s = new ReadableStream<Uint8Array>({
        start(c) {
          c.enqueue(bytes.slice(0, at));
          c.enqueue(bytes.slice(at));
          c.close();
        },
      });
      const got: WatchEvent[] = [];
      for await (const e of lines(s)) got.push(e);
      expect(got.map((e) => e.version)).toEqual([3, 4]);
      expect(got[0]!.object!.metadata.name).toBe("ä-desk");
    }
  });

  test("that were never ended are not taken", async () => {
    expect(await read(bookmark(1), '{"type":"put","ver')).toHaveLength(1);
  });
});

test("waiting grows to a limit and is never nothing", () => {
  expect(backoff(0, 0)).toBe(125);
  expect(backoff(0, 1)).toBe(250);
  expect(backoff(30, 1)).toBe(15_000);
});

describe("follow", () => {
  afterEach(() => vi.unstubAllGlobals());

  // Serves one answer per connection and ends the watch after the last.
  async function run(answers: (Response | Error)[]): Promise<{ estate: Estate; urls: string[]; links: boolean[]; out: number }> {
    const estate = new Estate();
    const stop = new AbortController();
    const urls: string[] = [];
    const links: boolean[] = [];
    let out = 0;
    estate.subscribe(() => links.push(estate.link.live));
    vi.stubGlobal("fetch", async (url: string) => {
      urls.push(url);
      const a = answers.shift()!;
      if (a instanceof Error) throw a;
      return a;
    });
    await follow({
      kinds: ["Desktop"],
      estate,
      signal: stop.signal,
      wait: async () => {
        if (!answers.length) stop.abort();
      },
      signedOut: () => out++,
    });
    return { estate, urls, links, out };
  }

  test("shows nothing before the whole list is told, then goes on from the last version", async () => {
    const r = await run([new Response(body(put("a", 5), put("b", 7), bookmark(9))), new Response(body(put("c", 12)))]);
    expect(r.estate.all("Desktop").map((d) => d.metadata.name)).toEqual(["a", "b", "c"]);
    expect(r.urls[0]).not.toContain("version=");
    expect(r.urls[1]).toContain("version=9");
    expect(r.links[0]).toBe(false);
  });

  test("lists anew when a list broke off", async () => {
    const r = await run([new Response(body(put("half", 5))), new Response(body(put("a", 5), bookmark(6)))]);
    expect(r.urls[1]).not.toContain("version=");
    expect(r.estate.all("Desktop").map((d) => d.metadata.name)).toEqual(["a"]);
  });

  test("forgets what went while the version was too old to resume", async () => {
    const gone = new Response('{"kind":"stale"}', { status: 410 });
    const r = await run([new Response(body(put("a", 5), bookmark(6))), gone, new Response(body(put("b", 8), bookmark(9)))]);
    expect(r.urls[2]).not.toContain("version=");
    expect(r.estate.all("Desktop").map((d) => d.metadata.name)).toEqual(["b"]);
  });

  test("keeps its place when the plane is away", async () => {
    const r = await run([new Response(body(bookmark(6))), new TypeError("refused"), new Response(body(bookmark(8)))]);
    expect(r.urls[2]).toContain("version=6");
    expect(r.links).toContain(true);
    expect(r.links.at(-1)).toBe(false);
  });

  test("ends when the person is signed out", async () => {
    const r = await run([new Response('{"kind":"unauthenticated"}', { status: 401 })]);
    expect(r.out).toBe(1);
    expect(r.urls).toHaveLength(1);
  });
});

describe("the estate", () => {
  test("does not let an old answer undo what the watch has told", () => {
    const e = new Estate();
    e.take({ type: "put", version: 9, object: { ...desktop("a", 9), status: { state: "running" } } });
    e.put(desktop("a", 7));
    expect(e.get("Desktop", "p", "a")?.status?.state).toBe("running");
  });

  test("drops what is deleted", () => {
    const e = new Estate();
    e.put(desktop("a", 1));
    e.take({ type: "deleted", version: 2, object: desktop("a", 1) });
    expect(e.all("Desktop")).toEqual([]);
  });
});
