// What is, in words for people. Pure: objects in, words out.
import { sentence } from "./call";
import type { Estate } from "./estate";
import type { Application, Clipboard, Desktop, Files, Phase, Plan, Pool, Session, Work } from "./words";

export type Tone = "rest" | "busy" | "good" | "bad";

const off = { text: "Off", tone: "rest" } as const;

const states: Record<string, { text: string; tone: Tone }> = {
  off,
  preparing: { text: "Being prepared", tone: "busy" },
  starting: { text: "Starting", tone: "busy" },
  running: { text: "Running", tone: "good" },
  warm: { text: "Ready for somebody", tone: "rest" },
  stopping: { text: "Stopping", tone: "busy" },
  blocked: { text: "Needs attention", tone: "bad" },
};

export function stateOf(d: Desktop): { text: string; tone: Tone } {
  if (d.metadata.deleting) return { text: "Being removed", tone: "busy" };
  return states[d.status?.state ?? "off"] ?? off;
}

/** troubleOf is why a desktop cannot be used, or empty. */
export function troubleOf(d: Desktop): string {
  if (d.status?.state !== "blocked") return "";
  const bad = (d.status.conditions ?? []).filter((c) => c.status === "False" && c.text);
  return bad.map((c) => sentence(c.text!)).join(" ") || sentence(d.status.waiting ?? "");
}

export interface Frame {
  title: string;
  colour: string;
  on: string; // text on the colour
  clipboard: Clipboard | undefined; // unknown when the context is not ours to read
  files: Files | undefined; // in the same way
}

const unknownColour = "#5b6472";

export function planOf(d: Desktop): Plan | undefined {
  return d.status?.plan ?? d.status?.next;
}

/** frameOf is the context a desktop lives in. */
export function frameOf(estate: Estate, d: Desktop): Frame {
  const project = d.metadata.project;
  const name = planOf(d)?.context ?? estate.get("Blueprint", project, d.spec.blueprint)?.spec.context ?? "";
  const context = estate.get("Context", project, name);
  const colour = context && /^#[0-9a-f]{6}$/i.test(context.spec.colour) ? context.spec.colour : unknownColour;
  return { title: context?.spec.title || capital(name) || "No context", colour, on: inkOn(colour), clipboard: context && (context.spec.clipboard ?? {}), files: context && (context.spec.files ?? {}) };
}

/** lastsASession reports whether a desktop is thrown away with its session. */
export function lastsASession(estate: Estate, d: Desktop): boolean {
  const plan = planOf(d);
  if (plan) return !!plan.disposable;
  const project = d.metadata.project;
  const blueprint = estate.get("Blueprint", project, d.spec.blueprint);
  return estate.get("Context", project, blueprint?.spec.context ?? "")?.spec.lifetime === "disposable";
}

/** coloursOf are the frame's colours as the style sheet names them. */
export function coloursOf(f: Frame): Record<string, string> {
  return { "--ctx": f.colour, "--on-ctx": f.on, "--off-ctx": f.on === "#ffffff" ? "#000000" : "#ffffff" };
}

/** inkOn is black or white, whichever reads better on the colour (WCAG 2 contrast). */
export function inkOn(colour: string): "#000000" | "#ffffff" {
  const l = luminance(colour);
  return (l + 0.05) / 0.05 >= 1.05 / (l + 0.05) ? "#000000" : "#ffffff";
}

function luminance(colour: string): number {
  const part = (i: number) => {
    const v = parseInt(colour.slice(i, i + 2), 16) / 255;
    return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  };
  return 0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5);
}

/** applicationsOf are the applications on a desktop that the person may see. */
export function applicationsOf(estate: Estate, d: Desktop): Application[] {
  const project = d.metadata.project;
  const plan = planOf(d);
  const names = plan
    ? (plan.layers ?? []).map((l) => l.application)
    : (estate.get("Blueprint", project, d.spec.blueprint)?.spec.applications ?? []).map((a) => a.name);
  return names.map((n) => estate.get("Application", project, n)).filter((a) => a !== undefined);
}

export function iconOf(a: Application): string {
  return a.spec.icon || a.spec.title.slice(0, 1).toUpperCase();
}

/** titleOf names a desktop as its person does. */
export function titleOf(estate: Estate, d: Desktop): string {
  return d.spec.title || estate.get("Blueprint", d.metadata.project, d.spec.blueprint)?.spec.title || capital(d.metadata.name);
}

/** poolTitleOf names a pool as people do. */
export function poolTitleOf(estate: Estate, p: Pool): string {
  return p.spec.title || estate.get("Blueprint", p.metadata.project, p.spec.blueprint)?.spec.title || capital(p.metadata.name);
}

/** seatOf is the person's seat of a pool, if they have one. */
export function seatOf(estate: Estate, p: Pool, person: string | undefined): Desktop | undefined {
  return estate.all("Desktop").find(
    (d) => d.metadata.project === p.metadata.project && d.spec.pool === p.metadata.name && d.spec.person === person && !!person && !d.metadata.deleting,
  );
}

/** seatToBe is a seat of a pool as it would be made: until there is one, it says what the seat will be. */
export function seatToBe(p: Pool): Desktop {
  return { apiVersion: p.apiVersion, kind: "Desktop", metadata: p.metadata, spec: { blueprint: p.spec.blueprint } };
}

/** seatsOf says how likely it is to get a seat at once. */
export function seatsOf(p: Pool): { text: string; tone: Tone } {
  const s = p.status;
  if (p.metadata.deleting) return { text: "Being removed", tone: "busy" };
  if (s?.queue) return { text: s.queue === 1 ? "1 person waits" : `${s.queue} persons wait`, tone: "busy" };
  if (s?.warm) return { text: s.warm === 1 ? "1 seat is ready" : `${s.warm} seats are ready`, tone: "good" };
  return { text: "Made when you ask", tone: "rest" };
}

/** queueOf says somebody's place in the queue for a seat, and how long it may take. */
export function queueOf(s: Session | undefined, now: number): { place: number; of: number; wait: string; remark: string } | undefined {
  const q = s?.status?.queue;
  if (!q) return undefined;
  const left = q.expected ? (Date.parse(q.expected) - now) / 1000 : undefined;
  const wait = left === undefined ? "Nobody can say yet how long it takes" : left < 5 ? "Any moment now" : `About ${spanOf(left)}`;
  return { place: q.place, of: q.of, wait, remark: q.assumed && left !== undefined ? "A guess: nothing was measured here yet" : "" };
}

/** spanOf says a length of time as roughly as it is known. */
function spanOf(seconds: number): string {
  if (seconds < 100) return `${Math.max(10, Math.round(seconds / 10) * 10)} seconds`;
  const minutes = Math.round(seconds / 60);
  return minutes < 100 ? `${minutes} minutes` : `${Math.round(minutes / 60)} hours`;
}

export function systemOf(estate: Estate, d: Desktop): string {
  const b = estate.get("Blueprint", d.metadata.project, d.spec.blueprint);
  const image = b && estate.get("Image", d.metadata.project, b.spec.image);
  return image?.spec.title || b?.spec.title || "";
}

/** workOf is the making of the image or of a layer that a desktop waits for. */
export function workOf(estate: Estate, d: Desktop): { what: string; work: Work } | undefined {
  const project = d.metadata.project;
  const b = estate.get("Blueprint", project, d.spec.blueprint);
  if (!b) return undefined;
  const image = estate.get("Image", project, b.spec.image);
  if (image?.status?.work) return { what: image.spec.title || image.metadata.name, work: image.status.work };
  for (const choice of b.spec.applications ?? []) {
    const a = estate.get("Application", project, choice.name);
    const layer = a?.status?.layers?.find((l) => l.work && !l.digest);
    if (a && layer?.work) return { what: a.spec.title, work: layer.work };
  }
  return undefined;
}

export interface Step {
  name: string;
  text: string;
  state: "done" | "now" | "next";
  seconds: number | undefined;
}

/** stepsOf are the phases of Connect in order. The last one begun and not ended is now. */
export function stepsOf(s: Session | undefined, now: number): Step[] {
  const phases = s?.status?.phases ?? [];
  return phases.map((p) => ({ name: capital(p.name.replaceAll("-", " ")), text: p.text ?? "", ...progressOf(p, now) }));
}

function progressOf(p: Phase, now: number): Pick<Step, "state" | "seconds"> {
  if (!p.began) return { state: p.ended ? "done" : "next", seconds: undefined };
  const end = p.ended ? Date.parse(p.ended) : now;
  return { state: p.ended ? "done" : "now", seconds: Math.max(0, (end - Date.parse(p.began)) / 1000) };
}

/** duration says 0.4 s, 12 s or 2 min 5 s. */
export function duration(seconds: number): string {
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const s = Math.round(seconds);
  return s < 60 ? `${s} s` : `${Math.floor(s / 60)} min ${s % 60} s`;
}

/** bytesOf reads an amount as the API writes it: 1048576, 512Ki, 1Mi. */
export function bytesOf(text: string | undefined, otherwise: number): number {
  const m = /^(\d+)(Ki|Mi|Gi|Ti)?$/.exec(text ?? "");
  if (!m) return otherwise;
  return Number(m[1]) * 1024 ** ["", "Ki", "Mi", "Gi", "Ti"].indexOf(m[2] ?? "");
}

export function capital(s: string): string {
  return s ? s[0]!.toUpperCase() + s.slice(1) : "";
}
