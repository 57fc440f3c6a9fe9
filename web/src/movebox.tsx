// "Move to…": every hypervisor with what stands against it, before anything begins.
import { useEffect, useState, type FormEvent } from "react";
import { useLocation } from "wouter";
import { at, call } from "./call";
import { Dialog } from "./dialog";
import type { Estate } from "./estate";
import { Icon } from "./icons";
import { amount, sharedBy } from "./moving";
import { Notice } from "./notice";
import { bytesOf } from "./telling";
import type { Hypervisor, MoveReply } from "./words";

/** MoveRequest is what is asked for (api.MoveRequest). */
interface MoveRequest {
  to: string;
  live: boolean;
  force: boolean;
  noVerify: boolean;
  why: string;
}

interface Props {
  estate: Estate;
  path: string; // of what moves, as at() makes it
  title: string;
  from: string;
  onClose: () => void;
}

type Answers = Map<string, MoveReply | Error>;

export function MoveBox({ estate, path, title, from, onClose }: Props) {
  const [, navigate] = useLocation();
  const [request, setRequest] = useState<MoveRequest>({ to: "", live: false, force: false, noVerify: false, why: "" });
  const [busy, setBusy] = useState(false);
  const [fault, setFault] = useState<unknown>();
  const others = estate.all("Hypervisor").filter((h) => h.metadata.name !== from);
  const answers = useAnswers(path, others, request);
  const shared = others.length > 1 ? sharedBy(others.map((h) => answers.get(h.metadata.name)).filter(isReply)) : [];
  const mine = answers.get(request.to);
  const free = isReply(mine) && !mine.obstacles?.length;
  const set = (change: Partial<MoveRequest>) => setRequest({ ...request, ...change });

  const begin = (e: FormEvent) => {
    e.preventDefault();
    setBusy(true);
    setFault(undefined);
    call<MoveReply>("POST", `${path}/move`, request).then(
      () => navigate("/moves"),
      (f: unknown) => {
        setFault(f);
        setBusy(false);
      },
    );
  };
  return (
    <Dialog title={`Move ${title}`} wide onClose={onClose}>
      <form onSubmit={begin} className="ask">
        <p className="quiet">
          It is on <strong>{from}</strong>. {request.live ? "It goes over while it runs." : "It is shut down for the move, which ends its sessions; whoever connects meanwhile waits for it."}
        </p>
        {shared.length > 0 && <Reasons list={shared} title="Wherever it is to go" />}
        <fieldset>
          <legend>Where to</legend>
          <Choice name="" about="of those that can take it" answer={answers.get("")} chosen={request.to === ""} onChoose={() => set({ to: "" })} />
          {others.map((h) => (
            <Choice
              key={h.metadata.name} name={h.metadata.name} about={aboutOf(h)} answer={answers.get(h.metadata.name)} hide={shared}
              chosen={request.to === h.metadata.name} onChoose={() => set({ to: h.metadata.name })}
            />
          ))}
        </fieldset>
        <fieldset className="ways">
          <legend>How</legend>
          <Tick text="While it runs" hint="between hosts that hand running machines over" on={request.live} onChange={(live) => set({ live })} />
          <Tick text="Although it is not known to run there" hint="goes ahead without knowing its system’s drivers" on={request.force} onChange={(force) => set({ force })} />
          <Tick text="Without trying its guest" hint="nobody looks whether it is alive over there" on={request.noVerify} onChange={(noVerify) => set({ noVerify })} />
          <label>
            Why, for the journal
            <input type="text" value={request.why} maxLength={200} onChange={(e) => set({ why: e.target.value })} />
          </label>
        </fieldset>
        {fault !== undefined && <Notice fault={fault} />}
        <div className="answers">
          <button type="button" onClick={onClose}>
            Leave it where it is
          </button>
          <button type="submit" className="primary" disabled={busy || !free}>
            {isReply(mine) && mine.to ? `Move it to ${mine.to}` : "Move it"}
          </button>
        </div>
      </form>
    </Dialog>
  );
}

function isReply(a: MoveReply | Error | undefined): a is MoveReply {
  return a !== undefined && !(a instanceof Error);
}

/** useAnswers asks about every hypervisor, and about none in particular, without beginning anything. */
function useAnswers(path: string, others: Hypervisor[], { live, force, noVerify }: MoveRequest): Answers {
  const [answers, setAnswers] = useState<Answers>(new Map());
  const names = others.map((h) => h.metadata.name).join(" "); // they hold no blanks
  useEffect(() => {
    const stop = new AbortController();
    setAnswers(new Map());
    for (const to of ["", ...names.split(" ").filter(Boolean)]) {
      const keep = (a: MoveReply | Error) => !stop.signal.aborted && setAnswers((was) => new Map(was).set(to, a));
      call<MoveReply>("POST", `${path}/move`, { to, live, force, noVerify, dryRun: true }, stop.signal).then(keep, (e: unknown) =>
        keep(e instanceof Error ? e : new Error(String(e))),
      );
    }
    return () => stop.abort();
  }, [path, names, live, force, noVerify]);
  return answers;
}

function aboutOf(h: Hypervisor): string {
  const s = h.status ?? {};
  const free = bytesOf(s.free?.memory, 0);
  return [s.product || h.spec.provider, free && `${amount(free)} of memory free`].filter(Boolean).join(" · ");
}

interface ChoiceProps {
  name: string; // empty: where there is most room
  about: string;
  answer: MoveReply | Error | undefined;
  hide?: string[]; // reasons that were said already
  chosen: boolean;
  onChoose: () => void;
}

function Choice({ name, about, answer, hide = [], chosen, onChoose }: ChoiceProps) {
  const reply = isReply(answer) ? answer : undefined;
  const against = reply?.obstacles ?? [];
  const told = against.filter((o) => !hide.includes(o));
  return (
    <div className={chosen ? "choice chosen" : "choice"}>
      <label>
        <input type="radio" name="to" checked={chosen} onChange={onChoose} />
        <span>
          <strong>{name || "Where there is most room"}</strong> <span className="about">{about}</span>
        </span>
        <Verdict answer={answer} text={!name && reply?.to && !against.length ? `goes to ${reply.to}` : "can take it"} />
      </label>
      {answer instanceof Error && <Notice fault={answer} />}
      {name ? told.length > 0 && <Reasons list={told} /> : null}
      {!!reply?.notes?.length && <Reasons list={reply.notes} title="What changes" remark />}
    </div>
  );
}

function Verdict({ answer, text }: { answer: MoveReply | Error | undefined; text: string }) {
  if (!answer) return <span className="spinner" role="status" aria-label="Being checked" />;
  const bad = answer instanceof Error || !!answer.obstacles?.length;
  return <span className={`state ${bad ? "bad" : "good"}`}>{bad ? "cannot" : text}</span>;
}

/** Reasons are what stands against something, all of it at once; as they are, since many begin with a name. */
export function Reasons({ list, title, remark }: { list: string[]; title?: string; remark?: boolean }) {
  return (
    <div className={remark ? "reasons remark" : "reasons"}>
      {title && <h3>{title}</h3>}
      <ul>
        {list.map((text) => (
          <li key={text}>{text}</li>
        ))}
      </ul>
    </div>
  );
}

function Tick({ text, hint, on, onChange }: { text: string; hint: string; on: boolean; onChange: (on: boolean) => void }) {
  return (
    <label className="tick">
      <input type="checkbox" checked={on} onChange={(e) => onChange(e.target.checked)} />
      <span>
        {text} <span className="about">{hint}</span>
      </span>
    </label>
  );
}

/** MoveButton opens the box. */
export function MoveButton({ estate, kind, project, name, title, from, text }: {
  estate: Estate; kind: "desktops" | "machines"; project: string | undefined; name: string; title: string; from: string; text?: string;
}) {
  const [asking, setAsking] = useState(false);
  return (
    <>
      <button type="button" className="go" onClick={() => setAsking(true)} aria-label={`Move ${title} to…`} title="Move to…">
        <Icon name="move" /> {text}
      </button>
      {asking && <MoveBox estate={estate} path={at(project, kind, name)} title={title} from={from} onClose={() => setAsking(false)} />}
    </>
  );
}
