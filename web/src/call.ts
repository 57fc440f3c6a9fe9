// Calls to the API, and what went wrong with them in words for people.
import type { FieldProblem, Problem } from "./words";

export class Fault extends Error {
  constructor(
    readonly kind: string,
    readonly detail: string,
    readonly problems: FieldProblem[] = [],
    readonly retryAfter = 0,
  ) {
    super(detail || kind);
  }
}

/** call sends one request and returns the answer's JSON, or throws a Fault. */
export async function call<T>(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<T> {
  const answer = await send(method, path, body, signal);
  const text = await answer.text();
  return (text ? JSON.parse(text) : undefined) as T;
}

/** send is call for those who read the body on their own. */
export async function send(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<Response> {
  const headers: Record<string, string> = { Accept: "application/json" };
  if (body !== undefined) {
    headers["Content-Type"] = method === "PATCH" ? "application/merge-patch+json" : "application/json";
  }
  let answer: Response;
  try {
    answer = await fetch(path, {
      method,
      headers,
      credentials: "same-origin",
      cache: "no-store",
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      ...(signal ? { signal } : {}),
    });
  } catch (e) {
    if (signal?.aborted) throw e;
    throw new Fault("unreachable", "");
  }
  if (!answer.ok) throw await faultOf(answer);
  return answer;
}

const kindsByStatus: Record<number, string> = {
  400: "invalid", 401: "unauthenticated", 403: "denied", 404: "not-found", 409: "exists", 410: "stale", 412: "conflict",
  422: "invalid", 423: "busy", 424: "stuck", 429: "rate-limited", 501: "unsupported", 503: "unavailable",
  504: "outcome-unknown", 507: "no-capacity",
};

/** faultOf is what went wrong, by an answer that is none. */
export async function faultOf(answer: Response): Promise<Fault> {
  let p: Partial<Problem> = {};
  try {
    p = (await answer.json()) as Partial<Problem>;
  } catch {
    // Not one of ours: a proxy's page, or nothing. The status must do.
  }
  return new Fault(
    p.kind ?? kindsByStatus[answer.status] ?? "internal",
    p.detail ?? "",
    p.problems ?? [],
    Number(answer.headers.get("Retry-After")) || 0,
  );
}

export interface Telling {
  what: string;
  next: string;
}

const told: Record<string, Telling> = {
  internal: { what: "Consort made a mistake.", next: "Try again. If it happens once more, tell your administrator." },
  invalid: { what: "That cannot work as it is.", next: "Change what is marked and try again." },
  unauthenticated: { what: "You are signed out.", next: "Sign in again." },
  denied: { what: "You may not do that.", next: "Ask your administrator for the right to." },
  "not-found": { what: "It is not there, or not for you to see.", next: "Go back to your desktops, or ask your administrator." },
  exists: { what: "There is one already.", next: "Use the one that is there, or choose another name." },
  conflict: { what: "It changed in the meantime.", next: "Look at it again, then try once more." },
  unsupported: { what: "This host cannot do that.", next: "Ask your administrator what it offers instead." },
  "no-capacity": { what: "There is no room left to run it.", next: "Close a desktop you do not need, or try again later." },
  busy: { what: "It is busy for a moment.", next: "Wait a few seconds and try again." },
  "rate-limited": { what: "Too many tries.", next: "Wait a minute and try again." },
  stale: { what: "That was about an older state.", next: "Load the page again." },
  stuck: { what: "It needs an administrator.", next: "Tell your administrator what you see here." },
  unavailable: { what: "A part of Consort cannot be reached.", next: "Wait a moment and try again." },
  "outcome-unknown": { what: "The answer was lost; it may have worked.", next: "Look before you try again." },
  unreachable: { what: "Consort does not answer.", next: "Check your network. This page goes on trying." },
};

/** tell says in two sentences what went wrong and what to do next, or what a page says instead about a kind. */
export function tell(e: unknown, instead: Partial<Record<string, string>> = {}): Telling {
  if (!(e instanceof Fault)) return told.internal!;
  const t = told[e.kind] ?? told.internal!;
  const what = sentence([e.detail, ...e.problems.map((p) => p.text)].filter(Boolean).join("; ")) || t.what;
  const next = e.retryAfter > 0 ? `Try again in ${e.retryAfter} seconds.` : (instead[e.kind] ?? t.next);
  return { what, next };
}

/** sentence begins with a capital and ends with a stop. */
export function sentence(text: string): string {
  const s = text.trim();
  if (!s) return "";
  return s[0]!.toUpperCase() + s.slice(1) + (/[.!?…]$/.test(s) ? "" : ".");
}

export function at(project: string | undefined, plural: string, name: string, ...rest: string[]): string {
  const parts = ["v1", ...(project ? ["projects", project] : []), plural, name, ...rest];
  return "/" + parts.map(encodeURIComponent).join("/");
}
