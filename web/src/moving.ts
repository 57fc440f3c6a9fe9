// Moves of machines in words for people. Pure: objects in, words out.
import { sentence } from "./call";
import type { Estate } from "./estate";
import { bytesOf, titleOf, type Step, type Tone } from "./telling";
import type { DiskCopy, Machine, MoveReply, Operation } from "./words";

/** What each step of the mover's journal does (plane/control/move). */
const steps: Record<string, string> = {
  stop: "Shut it down",
  prepare: "Make a place for it",
  copy: "Carry and hash its disks",
  depart: "Hand it over while it runs",
  place: "Give it to its new place",
  shelve: "Let go of it at the old place",
  boot: "Start it there",
  verify: "See that its guest is alive",
  restore: "Turn it off again",
  return: "Give it back",
};

const cold = ["stop", "prepare", "copy", "place", "shelve", "boot", "verify"];
const live = ["stop", "prepare", "depart", "place", "shelve", "boot", "verify"];

/** wayOf are the steps a move takes when nothing goes wrong, in order. */
function wayOf(o: Operation): string[] {
  const m = o.spec.move;
  if (m?.live) return live;
  if (m?.power !== "off") return cold;
  return m.unverified ? cold.slice(0, 5) : [...cold, "restore"];
}

/** journalOf are the steps of a move: those it took, and those that are still to come. */
export function journalOf(o: Operation, now: number): Step[] {
  const taken = o.status?.steps ?? [];
  const on = underWay(o);
  const done: Step[] = taken.map((s) => {
    const end = s.ended ? Date.parse(s.ended) : Date.parse(o.status?.ended ?? "") || now;
    const seconds = s.began ? Math.max(0, (end - Date.parse(s.began)) / 1000) : undefined;
    return { name: s.name, text: textOf(s.name, o), state: s.ended ? "done" : on ? "now" : "next", seconds };
  });
  if (!on || o.status?.error) return done; // nothing comes after a step that failed
  const rest = wayOf(o).filter((n) => !taken.some((s) => s.name === n));
  return [...done, ...rest.map((n): Step => ({ name: n, text: textOf(n, o), state: "next", seconds: undefined }))];
}

function textOf(step: string, o: Operation): string {
  if (step === "stop" && o.spec.move?.live) return "Look at its disks";
  return steps[step] ?? step;
}

export function underWay(o: Operation): boolean {
  return !o.status?.ended;
}

/** movesOf are the journals of moves: those under way first, then the newest. */
export function movesOf(estate: Estate): Operation[] {
  const began = (o: Operation) => Date.parse(o.metadata.created ?? "") || 0;
  const all = estate.all("Operation").filter((o) => o.spec.verb === "move" && o.spec.move);
  return all.sort((a, b) => Number(underWay(b)) - Number(underWay(a)) || began(b) - began(a));
}

/** moveOf is the move that a machine is on. */
export function moveOf(estate: Estate, m: Machine | undefined): Operation | undefined {
  const name = m?.spec.moving?.operation;
  return name ? estate.get("Operation", m.metadata.project, name) : undefined;
}

/** progressOf is how much of a move lies behind it, in percent: its steps are counted alike, and copying by bytes. */
export function progressOf(o: Operation): number {
  const way = wayOf(o);
  const ended = (name: string) => o.status?.steps?.some((s) => s.name === name && s.ended);
  const disks = (o.status?.disks ?? []).map((d) => freightOf(d, 0).percent / 100);
  const copied = disks.length ? disks.reduce((a, b) => a + b, 0) / disks.length : 0;
  const behind = way.reduce((n, step) => n + (ended(step) ? 1 : step === "copy" ? copied : 0), 0);
  return Math.round((100 * behind) / way.length);
}

/** subjectOf names what moves as people do: by its desktop, else its machine. */
export function subjectOf(estate: Estate, project: string | undefined, machine: string): string {
  const owner = estate.get("Machine", project, machine)?.metadata.owner;
  const desktop = owner?.kind === "Desktop" ? estate.get("Desktop", owner.project ?? project, owner.name) : undefined;
  return desktop ? titleOf(estate, desktop) : machine;
}

/** outcomeOf is how a move stands. */
export function outcomeOf(o: Operation): { text: string; tone: Tone } {
  const s = o.status?.state;
  if (s === "done") return { text: "Moved", tone: "good" };
  if (s === "failed") return { text: o.spec.abort ? "Aborted" : "Did not move", tone: "bad" };
  if (s === "undoing" || o.status?.error) return { text: "Being undone", tone: "busy" };
  return { text: o.spec.abort ? "About to be undone" : "Moving", tone: "busy" };
}

/** mayAbort reports whether the mover would still undo the move (its step advance). */
export function mayAbort(o: Operation): boolean {
  const ended = (name: string) => o.status?.steps?.some((s) => s.name === name && s.ended) ?? false;
  if (!underWay(o) || o.spec.abort || o.status?.error) return false;
  return !ended("verify") && !(o.spec.move?.live && ended("place"));
}

export interface Freight {
  name: string;
  percent: number; // of its size; all when it is there, though zeros were not sent
  text: string;
  digest: string;
}

/** freightOf says how far a disk has been carried. */
export function freightOf(d: DiskCopy, now: number): Freight {
  const size = bytesOf(d.size, 0);
  const sent = bytesOf(d.carried, 0);
  const seconds = d.began ? ((d.ended ? Date.parse(d.ended) : now) - Date.parse(d.began)) / 1000 : 0;
  const speed = sent > 0 && seconds > 0.5 ? `, ${amount(sent / seconds)} a second` : "";
  const text = `${amount(sent)} of ${amount(size)}${speed}`;
  const percent = d.ended ? 100 : size > 0 ? Math.min(99, Math.floor((100 * sent) / size)) : 0;
  return { name: d.name, percent, text, digest: d.digest ?? "" };
}

/** amount writes bytes as people read them: 1.5 GiB. */
export function amount(bytes: number): string {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  while (bytes >= 1024 && i < units.length - 1) {
    bytes /= 1024;
    i++;
  }
  return `${i === 0 || bytes >= 100 ? Math.round(bytes) : Number(bytes.toFixed(1))} ${units[i]}`;
}

/** shortOf is a digest as it can be compared by eye: its first twelve signs. */
export function shortOf(digest: string): string {
  return digest.replace(/^sha256:/, "").slice(0, 12);
}

/** sharedBy are the reasons that every answer has: they lie with the machine, not with where it goes. */
export function sharedBy(replies: MoveReply[]): string[] {
  const [first, ...rest] = replies.map((r) => r.obstacles ?? []);
  return (first ?? []).filter((text) => rest.every((r) => r.includes(text)));
}

/** driftOf says how somebody changed the machine behind our back, or nothing. */
export function driftOf(m: Machine | undefined): string {
  const c = m?.status?.conditions?.find((c) => c.type === "Drifted" && c.status === "True");
  return c ? sentence(c.text ?? "") : "";
}
