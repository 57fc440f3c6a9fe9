// Machines on their way from one hypervisor to another, and how earlier ones fared.
import { useEffect, useState, type ReactNode } from "react";
import { at, call, sentence } from "./call";
import { Bar } from "./card";
import { Confirm } from "./confirm";
import { useEstate, type Estate } from "./estate";
import { Icon } from "./icons";
import { Masthead, type MastheadProps } from "./masthead";
import { freightOf, journalOf, mayAbort, movesOf, outcomeOf, shortOf, subjectOf, underWay, type Freight } from "./moving";
import { Notice, Offline } from "./notice";
import { StepLine, useNow } from "./progress";
import { Route } from "./route";
import { duration } from "./telling";
import type { Operation } from "./words";

const kept = 30; // ended moves shown; 'consort get operations' lists all

export function Moves(p: MastheadProps) {
  const { estate } = p;
  useEstate(estate);
  useEffect(() => {
    document.title = "Moves · Consort";
  }, []);
  const all = movesOf(estate);
  const now = all.filter(underWay);
  const ended = all.filter((o) => !underWay(o)).slice(0, kept);
  return (
    <div className="home">
      <Masthead {...p} here="/moves" />
      <Offline estate={estate} />
      <main>
        <h1>Moves</h1>
        {estate.loaded && all.length === 0 && (
          <div className="empty">
            <h2>Nothing has moved yet</h2>
            <p>A machine goes to another hypervisor from its card: choose “Move to…” under Desktops or Hypervisors. Everything it takes is written down here.</p>
          </div>
        )}
        <Part title="Under way" kind="moves" moves={now}>
          {(o) => <Journal estate={estate} operation={o} />}
        </Part>
        <Part title="Ended" kind="moves ended" moves={ended}>
          {(o) => <Ended estate={estate} operation={o} />}
        </Part>
      </main>
    </div>
  );
}

function Part({ title, kind, moves, children }: { title: string; kind: string; moves: Operation[]; children: (o: Operation) => ReactNode }) {
  if (!moves.length) return null;
  return (
    <>
      <h2 className="part">{title}</h2>
      <ul className={kind}>
        {moves.map((o) => (
          <li key={o.metadata.uid ?? o.metadata.name}>{children(o)}</li>
        ))}
      </ul>
    </>
  );
}

/** Journal is a move under way. */
function Journal({ estate, operation: o }: { estate: Estate; operation: Operation }) {
  const now = useNow(500);
  const [asking, setAsking] = useState(false);
  const [fault, setFault] = useState<unknown>();
  const { project } = o.metadata;
  const title = subjectOf(estate, project, o.spec.on.name);
  const id = `move-${o.metadata.name}`;
  const state = outcomeOf(o);
  const owner = estate.get("Machine", project, o.spec.on.name)?.spec.hypervisor ?? "";
  return (
    <article className="move" aria-labelledby={id}>
      <div className="title">
        <h3 id={id}>{title}</h3>
        <span className={`state ${state.tone}`}>{state.text}</span>
      </div>
      <About operation={o} />
      <Route from={o.spec.move!.from} to={o.spec.move!.to} at={owner} />
      <Outcome operation={o} />
      {o.status?.waiting && (
        <p className="waiting" role="status">
          {sentence(o.status.waiting)}
        </p>
      )}
      <Steps operation={o} now={now} />
      <Disks freight={(o.status?.disks ?? []).map((d) => freightOf(d, now))} />
      {fault !== undefined && <Notice fault={fault} action="Close" onAction={() => setFault(undefined)} />}
      <div className="foot">
        <span className="quiet elapsed">{duration(Math.max(0, now - Date.parse(o.metadata.created ?? "")) / 1000 || 0)}</span>
        {mayAbort(o) && (
          <button type="button" onClick={() => setAsking(true)} aria-label={`Abort the move of ${title}`}>
            Abort
          </button>
        )}
      </div>
      {asking && (
        <Confirm
          question={`Abort the move of ${title}?`} act="Abort the move" keep="Let it go on"
          run={() => call("POST", at(project, "operations", o.metadata.name, "abort"), {})}
          onClose={() => setAsking(false)} onFault={setFault}
        >
          <p>
            What was done is taken back: it will be on <strong>{o.spec.move!.from}</strong> as it was before.
          </p>
        </Confirm>
      )}
    </article>
  );
}

/** Ended is one line, with the journal behind it. */
function Ended({ estate, operation: o }: { estate: Estate; operation: Operation }) {
  const end = Date.parse(o.status?.ended ?? "");
  const took = (end - Date.parse(o.metadata.created ?? "")) / 1000;
  const state = outcomeOf(o);
  return (
    <details className="move">
      <summary>
        <strong>{subjectOf(estate, o.metadata.project, o.spec.on.name)}</strong>
        <Route from={o.spec.move!.from} to={o.spec.move!.to} at="" />
        <span className={`state ${state.tone}`}>{state.text}</span>
        <span className="quiet elapsed">{took >= 0 && `${duration(took)}, `}{new Date(end).toLocaleString()}</span>
      </summary>
      <About operation={o} />
      <Outcome operation={o} />
      <Steps operation={o} now={end} />
      <Disks freight={(o.status?.disks ?? []).map((d) => freightOf(d, end))} />
    </details>
  );
}

function About({ operation: o }: { operation: Operation }) {
  const text = [
    `machine ${o.spec.on.name}`, o.spec.by && `asked for by ${o.spec.by}`, o.spec.move?.live && "while it runs",
    o.spec.why, `operation ${o.metadata.name}`,
  ];
  return <p className="about">{text.filter(Boolean).join(" · ")}</p>;
}

/** Outcome is why it failed and what to know about how it went. */
function Outcome({ operation: o }: { operation: Operation }) {
  const s = o.status ?? {};
  return (
    <>
      {s.error && (
        <p className="trouble">
          <Icon name="alert" /> <span>{sentence(s.error)} {underWay(o) ? "" : `It is on ${o.spec.move?.from} as it was.`}</span>
        </p>
      )}
      {s.note && (
        <p className="remark">
          <Icon name="alert" /> <span>{sentence(s.note)}</span>
        </p>
      )}
    </>
  );
}

function Steps({ operation: o, now }: { operation: Operation; now: number }) {
  return (
    <ol className="steps" aria-label="Steps">
      {journalOf(o, now).map((s) => (
        <StepLine key={s.name} step={s} />
      ))}
    </ol>
  );
}

function Disks({ freight }: { freight: Freight[] }) {
  if (!freight.length) return null;
  return (
    <div className="disks" role="group" aria-label="Disks">
      {freight.map((f) => (
        <div key={f.name}>
          <Bar percent={f.percent} text={`Disk ${f.name}: ${f.text}`} />
          {f.digest && (
            <p className="hash" title={f.digest}>
              <Icon name="check" /> the same before and after: <code>{shortOf(f.digest)}</code>
            </p>
          )}
        </div>
      ))}
      <p className="hint">Runs of zeros are not sent.</p>
    </div>
  );
}
