// What trials say: which hypervisor is best at what, and what changed since an
// earlier run. The rules are those of the Go package matrix; the verdicts in
// ../test/unit/verdicts.json hold both to the same answers.
import { apartByChance, undoubted, welch } from "./chance";
import { capital } from "./telling";
import type { Trial } from "./words";

export interface Column {
  name: string; // the hypervisor, and the type of guest where one was chosen
  product: string;
  accelerator: string;
}

export interface Cell {
  column: Column;
  samples: number[];
  median: number;
  low: number;
  high: number;
}

export type Better = "lower" | "higher";
export type Verdict = "no difference" | "better" | "worse" | "not measured" | "too few repeats" | "doubtful";

export interface Row {
  figure: string;
  better: Better;
  cells: Cell[]; // those measured, in the order of the columns
}

export interface Part {
  workload: string;
  rows: Row[];
  notes: { column: string; text: string }[];
}

export interface Matrix {
  columns: Column[];
  parts: Part[];
}

const least = 0.1; // by how much medians must differ, as a share of the smaller
const chance = 0.05; // by which repeats of the same thing may lie apart before so few say nothing

/** compare says how b is against a. No sample of one may lie among those of the other. */
export function compare(a: Cell | undefined, b: Cell | undefined, better: Better): Verdict {
  if (!a || !b) return "not measured";
  if (apartByChance(a.samples.length, b.samples.length) > chance) return "too few repeats";
  const apart = a.high < b.low || b.high < a.low;
  if (!apart || Math.abs(a.median - b.median) < least * Math.min(Math.abs(a.median), Math.abs(b.median))) return "no difference";
  return b.median < a.median === (better === "lower") ? "better" : "worse";
}

export function cellOf(column: Column, samples: number[]): Cell | undefined {
  const s = [...samples].sort((a, b) => a - b);
  const n = s.length;
  if (!n) return undefined;
  return { column, samples, low: s[0]!, high: s[n - 1]!, median: (s[(n - 1) >> 1]! + s[n >> 1]!) / 2 };
}

/** usual are the workloads as they are told, in the order of 'consort matrix run'; others come after. */
const usual: Record<string, string> = {
  boot: "Boot", cpu: "Processor", memory: "Memory", switches: "Thread switches", disk: "Disk", packets: "Small packets",
  tcp: "TCP stream", display: "Display", snapshot: "Snapshot",
};

export function workloadOf(name: string): string {
  return usual[name] ?? capital(name);
}

function placeOf(workload: string): number {
  const names = Object.keys(usual);
  const i = names.indexOf(workload);
  return i < 0 ? names.length : i;
}

export function columnOf(t: Trial): Column {
  const name = t.spec.guestType ? `${t.spec.hypervisor}/${t.spec.guestType}` : t.spec.hypervisor;
  return { name, product: t.spec.product ?? "", accelerator: t.spec.accelerator ?? "" };
}

/** matrixOf is the matrix of one run's trials. */
export function matrixOf(trials: Trial[]): Matrix {
  const columns = new Map<string, Column>();
  const parts = new Map<string, Part>();
  const sorted = [...trials].sort((a, b) => columnOf(a).name.localeCompare(columnOf(b).name));
  for (const t of sorted) {
    const { workload, note } = t.spec;
    const column = columns.get(columnOf(t).name) ?? columnOf(t);
    columns.set(column.name, column);
    const part = parts.get(workload) ?? { workload, rows: [], notes: [] };
    parts.set(workload, part);
    if (note) part.notes.push({ column: column.name, text: note });
    for (const f of t.spec.figures ?? []) {
      const cell = cellOf(column, f.samples ?? []);
      let row = part.rows.find((r) => r.figure === f.name);
      if (!row) part.rows.push((row = { figure: f.name, better: f.better, cells: [] }));
      if (cell) row.cells.push(cell);
    }
  }
  const order = (a: Part, b: Part) => placeOf(a.workload) - placeOf(b.workload) || a.workload.localeCompare(b.workload);
  const inOrder = [...parts.values()].sort(order);
  for (const p of inOrder) p.rows.sort((a, b) => a.figure.localeCompare(b.figure, "en", { numeric: true }));
  return { columns: [...columns.values()], parts: inOrder };
}

/** leadersOf are the cells with the best median and those not shown to be behind it. One alone is the best. */
export function leadersOf(r: Row): Cell[] {
  if (r.cells.length < 2) return [];
  const top = r.cells.reduce((best, c) => ((c.median < best.median) === (r.better === "lower") && c.median !== best.median ? c : best));
  return r.cells.filter((c) => c === top || compare(top, c, r.better) !== "worse");
}

/** saidOf says in words how a row came out. */
export function saidOf(r: Row): string {
  const leaders = leadersOf(r);
  const names = leaders.map((c) => c.column.name);
  if (!leaders.length) return "Only one was measured.";
  if (leaders.some((a) => leaders.some((b) => compare(a, b, r.better) === "too few repeats"))) return "Too few repeats to say.";
  if (leaders.length === r.cells.length) return "No difference: their spreads meet, or they are less than a tenth apart.";
  if (leaders.length > 1) return `No difference between ${listOf(names)}; the rest is behind.`;
  const best = leaders[0]!;
  const next = r.cells.filter((c) => c !== best).reduce((a, b) => ((b.median < a.median) === (r.better === "lower") ? b : a));
  const times = r.better === "lower" ? next.median / best.median : best.median / next.median;
  return `${names[0]} is best${Number.isFinite(times) ? `: ${times.toFixed(times < 10 ? 1 : 0)} times as good as ${next.column.name}` : ""}.`;
}

function listOf(names: string[]): string {
  return names.length < 2 ? (names[0] ?? "") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
}

export interface Change {
  verdict: Verdict;
  was: Cell;
  percent: number; // by how much the median grew
  release: boolean; // the product or its accelerator is another
}

/** Changes are how the cells of a run differ from those of an earlier one, where that has them. */
export type Changes = Map<Cell, Change>;

/** changesOf compares two runs. So many comparisons bring differences about by chance; what is one of those perhaps is doubtful. */
export function changesOf(was: Matrix, is: Matrix): Changes {
  const out: Changes = new Map();
  for (const p of is.parts) {
    for (const r of p.rows) {
      const before = was.parts.find((o) => o.workload === p.workload)?.rows.find((o) => o.figure === r.figure);
      for (const c of r.cells) {
        const old = before?.cells.find((o) => o.column.name === c.column.name);
        if (old) out.set(c, changeOf(old, c, r.better));
      }
    }
  }
  judge([...out]);
  return out;
}

function changeOf(was: Cell, is: Cell, better: Better): Change {
  const release = was.column.product !== is.column.product || was.column.accelerator !== is.column.accelerator;
  const percent = was.median ? Math.round((100 * (is.median - was.median)) / was.median) : 0;
  return { verdict: compare(was, is, better), was, percent, release };
}

/** judge takes back the verdicts that chance may have brought about. */
export function judge(changes: [is: Cell, Change][]): void {
  const told = changes.filter(([, c]) => c.verdict !== "not measured" && c.verdict !== "too few repeats");
  const clear = undoubted(told.map(([is, c]) => welch(c.was.samples, is.samples)));
  told.forEach(([, c], i) => {
    if (!clear[i] && c.verdict !== "no difference") c.verdict = "doubtful";
  });
}

/** runsOf are the runs, newest first, each with when its last trial ended. */
export function runsOf(trials: Trial[]): { run: string; at: number; trials: Trial[] }[] {
  const runs = new Map<string, Trial[]>();
  for (const t of trials) runs.set(t.spec.run, [...(runs.get(t.spec.run) ?? []), t]);
  const all = [...runs].map(([run, trials]) => ({ run, trials, at: Math.max(0, ...trials.map((t) => Date.parse(t.spec.at ?? "") || 0)) }));
  return all.sort((a, b) => b.at - a.at || b.run.localeCompare(a.run));
}

/** Units stand at the end of a figure's name; the longest that fits is it. */
const units: [ending: string, unit: string][] = [
  ["_mb_per_s", "MB/s"], ["_per_s", "a second"], ["_iops", "operations a second"], ["_us", "µs"], ["_ms", "ms"], ["_s", "s"],
];

/** unfolded are the words that names of figures abbreviate. */
const unfolded: Record<string, string> = {
  rtt: "round trip", rate: "answers", sha256: "SHA-256", "4k": "4 KiB", p50: "half are faster", p95: "95 % are faster", p99: "99 % are faster",
};

/** nameOf reads a figure's name: rtt_64_p50_us is "Round trip, 64 bytes, half are faster" in µs. */
export function nameOf(figure: string): { title: string; unit: string } {
  const found = units.find(([ending]) => figure.endsWith(ending));
  const words = (found ? figure.slice(0, -found[0].length) : figure).split("_").filter(Boolean);
  const sized = words[0] === "rtt" || words[0] === "rate";
  const told = words.map((w, i) => (sized && i === 1 && /^\d+$/.test(w) ? `${w} bytes` : (unfolded[w] ?? w)));
  return { title: capital(told.join(sized ? ", " : " ")), unit: found?.[1] ?? "" };
}

/** figureOf writes three figures that count. */
export function figureOf(v: number): string {
  const a = Math.abs(v);
  if (a >= 1000) return Number(v.toPrecision(3)).toLocaleString("en");
  return a >= 100 ? v.toFixed(0) : Number(v.toPrecision(3)).toString();
}
