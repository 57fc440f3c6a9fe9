// The competitive matrix as a picture: every figure on a scale of its own that
// begins at nothing, with the spread of its repeats.
import { useEffect, useMemo, useState } from "react";
import { sentence } from "./call";
import { useEstate, Estate } from "./estate";
import {
  changesOf, figureOf, leadersOf, matrixOf, nameOf, runsOf, saidOf, workloadOf,
  type Cell, type Change, type Changes, type Column, type Matrix as Table, type Part, type Row,
} from "./measured";
import { Masthead, type MastheadProps } from "./masthead";
import { Offline } from "./notice";
import { wait } from "./visit";
import { follow } from "./watch";

/** useTrials follows the trials for as long as the page shows them. */
function useTrials(): Estate {
  const [trials] = useState(() => new Estate());
  useEffect(() => {
    const stop = new AbortController();
    // The page's own watch tells when one is signed out.
    void follow({ estate: trials, kinds: ["Trial"], signal: stop.signal, wait, signedOut: () => undefined });
    return () => stop.abort();
  }, [trials]);
  return useEstate(trials);
}

export function Matrix(p: MastheadProps) {
  useEstate(p.estate);
  const trials = useTrials();
  const [chosen, setChosen] = useState<{ run?: string; before?: string }>({});
  useEffect(() => {
    document.title = "Matrix · Consort";
  }, []);
  const runs = useMemo(() => runsOf(trials.all("Trial")), [trials, trials.revision()]);
  const run = runs.find((r) => r.run === chosen.run) ?? runs[0];
  const older = run ? runs.slice(runs.indexOf(run) + 1) : [];
  const before = chosen.before === "" ? undefined : (older.find((r) => r.run === chosen.before) ?? older[0]);
  const is = useMemo(() => run && matrixOf(run.trials), [run]);
  const was = useMemo(() => before && matrixOf(before.trials), [before]);
  const changes = useMemo(() => was && is && changesOf(was, is), [was, is]);
  const dated = (r: { run: string; at: number }) => `${r.run}${r.at ? `, ${new Date(r.at).toLocaleString([], { dateStyle: "medium", timeStyle: "short" })}` : ""}`;
  return (
    <div className="home">
      <Masthead {...p} here="/matrix" />
      <Offline estate={p.estate} />
      <main>
        <h1>Matrix</h1>
        {trials.loaded && !run && (
          <div className="empty">
            <h2>Nothing has been measured yet</h2>
            <p>
              Run the same guest and the same workloads on every hypervisor, in turns:
              <br />
              <code>consort matrix run --image bench-guest --network lan</code>
            </p>
          </div>
        )}
        {run && is && (
          <>
            <div className="runs">
              <label>
                Run
                <select value={run.run} onChange={(e) => setChosen({ run: e.target.value })}>
                  {runs.map((r) => (
                    <option key={r.run} value={r.run}>{dated(r)}</option>
                  ))}
                </select>
              </label>
              <label>
                Compared with
                <select value={before?.run ?? ""} onChange={(e) => setChosen({ run: run.run, before: e.target.value })}>
                  <option value="">nothing</option>
                  {older.map((r) => (
                    <option key={r.run} value={r.run}>{dated(r)}</option>
                  ))}
                </select>
              </label>
            </div>
            <Columns columns={is.columns} was={was} />
            {changes && <p className="summary">{summaryOf(is, changes)}</p>}
            <div className="workloads">
              {is.parts.map((part) => (
                <Workload key={part.workload} part={part} changes={changes} />
              ))}
            </div>
            <Reading compared={!!changes} />
          </>
        )}
      </main>
    </div>
  );
}

/** Columns say what was measured: names alone age. */
function Columns({ columns, was }: { columns: Column[]; was: Table | undefined }) {
  return (
    <ul className="columns" aria-label="What was measured">
      {columns.map((c) => {
        const old = was?.columns.find((o) => o.name === c.name);
        const changed = old && (old.product !== c.product || old.accelerator !== c.accelerator);
        return (
          <li key={c.name}>
            <strong>{c.name}</strong>
            <span className="about">{[c.product || "release not known", c.accelerator || "accelerator not known"].join(" · ")}</span>
            {changed && <span className="about">before: {[old.product, old.accelerator].filter(Boolean).join(" · ")}</span>}
          </li>
        );
      })}
    </ul>
  );
}

function summaryOf(is: Table, changes: Changes): string {
  const n = { "no difference": 0, better: 0, worse: 0, "not measured": 0, "too few repeats": 0, doubtful: 0 };
  for (const c of changes.values()) n[c.verdict]++;
  const all = is.parts.flatMap((p) => p.rows.flatMap((r) => r.cells)).length;
  return [
    `Since the run before: no difference in ${n["no difference"] + n.doubtful}, ${n.better} better, ${n.worse} worse.`,
    n.doubtful && `${n.doubtful} of those without a difference lie apart, as some do by chance among so many.`,
    n["too few repeats"] && `${n["too few repeats"]} have too few repeats to say.`,
    all > changes.size && `${all - changes.size} were not measured before.`,
  ].filter(Boolean).join(" ");
}

function Workload({ part, changes }: { part: Part; changes: Changes | undefined }) {
  const id = `workload-${part.workload}`;
  return (
    <section className={part.rows.length > 1 ? "workload many" : "workload"} aria-labelledby={id}>
      <h2 id={id}>{workloadOf(part.workload)}</h2>
      <div className="figures">
        {part.rows.map((r) => (
          <Figure key={r.figure} row={r} changes={changes} />
        ))}
      </div>
      {part.notes.length > 0 && (
        <ul className="notes" aria-label={`Notes on ${part.workload}`}>
          {part.notes.map((n) => (
            <li key={n.column + n.text}>
              <strong>{n.column}</strong>: {sentence(n.text)}
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}

function Figure({ row, changes }: { row: Row; changes: Changes | undefined }) {
  const { title, unit } = nameOf(row.figure);
  const leaders = leadersOf(row);
  const most = Math.max(...row.cells.flatMap((c) => [c.high, changes?.get(c)?.was.median ?? 0])) || 1;
  return (
    <div className="figure">
      <table>
        <caption>
          <strong>{title}</strong>
          <span className="about">
            {unit && `${unit}, `}
            {row.better} is better
          </span>
        </caption>
        <thead className="unseen">
          <tr>
            <th scope="col">Hypervisor</th>
            <td />
            <th scope="col">Median, least to greatest</th>
            {changes && <th scope="col">Since before</th>}
          </tr>
        </thead>
        <tbody>
          {row.cells.map((c) => {
            const best = leaders.length === 1 && leaders[0] === c;
            return (
              <tr key={c.column.name} className={best ? "best" : ""}>
                <th scope="row" title={c.column.name}>{c.column.name}</th>
                <td className="drawn">
                  <Spread cell={c} was={changes?.get(c)?.was} most={most} />
                </td>
                <td className="number">
                  <strong>{figureOf(c.median)}</strong>
                  {best && <span className="crown"> best</span>}
                  <span className="range">
                    {figureOf(c.low)} <span aria-hidden="true">–</span>
                    <span className="unseen">to</span> {figureOf(c.high)}
                  </span>
                </td>
                {changes && (
                  <td className="since">
                    <Since change={changes.get(c)} />
                  </td>
                )}
              </tr>
            );
          })}
        </tbody>
        <tfoot>
          <tr>
            <td colSpan={changes ? 4 : 3}>{saidOf(row)}</td>
          </tr>
        </tfoot>
      </table>
    </div>
  );
}

// Hundreds are whole enough: the drawing stretches to its place's width.
const across = 1000;

/** Spread draws the median as a bar from nothing, the repeats as a band around its end, and the run before as a notch. */
function Spread({ cell: c, was, most }: { cell: Cell; was: Cell | undefined; most: number }) {
  const x = (v: number) => Math.max(0, (across * v) / most);
  const width = Math.max(4, x(c.high) - x(c.low));
  return (
    <svg viewBox={`0 0 ${across} 20`} preserveAspectRatio="none" aria-hidden="true">
      <rect className="bed" x="0" y="6" width={across} height="8" rx="0" />
      <rect className="median" x="0" y="6" width={x(c.median)} height="8" />
      <rect className="spread" x={Math.min(x(c.low), across - width)} y="2" width={width} height="16" />
      <line className="middle" x1={x(c.median)} x2={x(c.median)} y1="1" y2="19" />
      {was && <line className="before" x1={x(was.median)} x2={x(was.median)} y1="0" y2="20" />}
    </svg>
  );
}

const signs = { better: "▲", worse: "▼" } as const;

function Since({ change: c }: { change: Change | undefined }) {
  if (!c) return <span className="about">new</span>;
  if (c.verdict !== "better" && c.verdict !== "worse") return <span className="about">{c.verdict}</span>;
  return (
    <span className={c.verdict} title={`It was ${figureOf(c.was.median)} (${figureOf(c.was.low)} to ${figureOf(c.was.high)}).`}>
      <span aria-hidden="true">{signs[c.verdict]}</span> {c.verdict}, {c.percent > 0 ? "+" : "−"}
      {Math.abs(c.percent)} %{c.release && <span className="about"> with another release</span>}
    </span>
  );
}

function Reading({ compared }: { compared: boolean }) {
  return (
    <p className="hint reading">
      A bar ends at the median and begins at nothing; the band around its end is from the least to the greatest repeat.
      The best is named only where no repeat of another comes near and the medians are at least a tenth apart: with five repeats, chance alone does that in one row of 126.
      {compared && " The dashed line is the median of the run before. Doubtful is what lies apart from it, as some figures do by chance where so many are compared."}
    </p>
  );
}
