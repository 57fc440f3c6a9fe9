import { useState, type CSSProperties } from "react";
import { Afresh } from "./afresh";
import { at, call, sentence } from "./call";
import { Confirm } from "./confirm";
import type { Estate } from "./estate";
import { Icon } from "./icons";
import { MoveButton } from "./movebox";
import { driftOf, moveOf, outcomeOf, progressOf } from "./moving";
import { Notice } from "./notice";
import { pictureOf } from "./pictures";
import { applicationsOf, coloursOf, frameOf, iconOf, lastsASession, planOf, stateOf, systemOf, titleOf, troubleOf, workOf } from "./telling";
import type { Application, Desktop } from "./words";

interface Props {
  estate: Estate;
  desktop: Desktop;
  admin: boolean; // may move it
  owner: string; // whose it is, when not the person's own
  onConnect: (application?: string) => void;
}

export function Card({ estate, desktop: d, admin, owner, onConnect }: Props) {
  const [asking, setAsking] = useState<"off" | "afresh">();
  const [fault, setFault] = useState<unknown>();
  const frame = frameOf(estate, d);
  const state = stateOf(d);
  const title = titleOf(estate, d);
  const trouble = troubleOf(d);
  const applications = applicationsOf(estate, d);
  const work = state.tone === "good" ? undefined : workOf(estate, d);
  const machine = estate.get("Machine", d.metadata.project, d.status?.machine ?? "");
  const move = moveOf(estate, machine);
  const drift = admin ? driftOf(machine) : "";
  const way = d.status?.presentation || planOf(d)?.presentation.name || estate.get("Blueprint", d.metadata.project, d.spec.blueprint)?.spec.presentation;
  const about = [systemOf(estate, d), owner && `for ${owner}`, way && `shown through ${way}`].filter(Boolean).join(" · ");
  const id = `desk-${d.metadata.project}-${d.metadata.name}`;
  const colours = coloursOf(frame) as CSSProperties;
  const picture = state.tone === "good" ? pictureOf(d) : undefined;
  return (
    <article className="card" style={colours} aria-labelledby={id}>
      <div className="screen">
        <span className="context">{frame.title}</span>
        {picture ? <img src={picture} alt="" /> : <Wallpaper asleep={state.tone !== "good"} />}
        <span className={`state ${state.tone}`}>{state.text}</span>
      </div>
      <div className="body">
        <h2 id={id}>{title}</h2>
        <p className="about">{about}</p>
        {work ? (
          <Bar percent={work.work.percent} text={`${work.what}: ${work.work.phase}`} />
        ) : (
          state.tone === "busy" && d.status?.waiting && <p className="waiting">{sentence(d.status.waiting)}</p>
        )}
        {move && <Bar percent={progressOf(move)} text={`${outcomeOf(move).text}: from ${move.spec.move!.from} to ${move.spec.move!.to}`} />}
        {drift && (
          <p className="remark">
            <Icon name="alert" /> <span>Somebody changed its machine. {drift}</span>
          </p>
        )}
        {trouble && (
          <p className="trouble">
            <Icon name="alert" /> <span>{trouble}</span>
          </p>
        )}
        <Applications list={applications} desktop={title} disabled={state.tone === "bad"} onStart={onConnect} />
        {fault !== undefined && <Notice fault={fault} action="Close" onAction={() => setFault(undefined)} />}
        <div className="acts">
          <button type="button" className="connect" disabled={state.tone === "bad"} onClick={() => onConnect()} aria-label={`Connect to ${title}`}>
            Connect
          </button>
          {admin && machine?.spec.hypervisor && !machine.spec.moving && (
            <MoveButton estate={estate} kind="desktops" project={d.metadata.project} name={d.metadata.name} title={title} from={machine.spec.hypervisor} />
          )}
          {machine && lastsASession(estate, d) && (
            <button type="button" className="off" onClick={() => setAsking("afresh")} aria-label={`Throw away ${title}`} title="Throw away">
              <Icon name="throw" />
            </button>
          )}
          {d.spec.power === "on" && d.status?.state !== "stopping" && (
            <button type="button" className="off" onClick={() => setAsking("off")} aria-label={`Turn off ${title}`} title="Turn off">
              <Icon name="leave" />
            </button>
          )}
        </div>
        {asking === "afresh" && <Afresh estate={estate} desktop={d} title={title} onClose={() => setAsking(undefined)} onFault={setFault} />}
        {asking === "off" && (
          <Confirm
            question={`Turn off ${title}?`} act="Turn off" onClose={() => setAsking(undefined)} onFault={setFault}
            run={() => call("PATCH", at(d.metadata.project, "desktops", d.metadata.name), { spec: { power: "off" } })}
          >
            <p>Open programs close and unsaved work in them is lost. Your files stay; Connect turns it on again.</p>
          </Confirm>
        )}
      </div>
    </article>
  );
}

interface ApplicationsProps {
  list: Application[];
  desktop: string;
  disabled: boolean;
  onStart: (name: string) => void;
}

export function Applications({ list, desktop, disabled, onStart }: ApplicationsProps) {
  if (!list.length) return null;
  return (
    <ul className="apps" aria-label={`Applications of ${desktop}`}>
      {list.map((a) => (
        <li key={a.metadata.name}>
          <button type="button" disabled={disabled} onClick={() => onStart(a.metadata.name)} aria-label={`Start ${a.spec.title}`}>
            <span className="glyph" data-icon={iconOf(a)} style={{ "--hue": hueOf(a.metadata.name) } as CSSProperties} />
            <span className="name">{a.spec.title}</span>
          </button>
        </li>
      ))}
    </ul>
  );
}

/** hueOf gives each application a colour of its own that stays. */
function hueOf(name: string): number {
  let h = 7;
  for (const c of name) h = (h * 31 + c.codePointAt(0)!) % 360;
  return h;
}

export function Bar({ percent, text }: { percent: number; text: string }) {
  const p = Math.max(0, Math.min(100, percent));
  return (
    <div className="bar">
      <div className="label">
        <span>{text}</span>
        <span>{p} %</span>
      </div>
      <div className="track" role="progressbar" aria-valuenow={p} aria-valuemin={0} aria-valuemax={100} aria-label={text}>
        <div className="fill" style={{ width: `${p}%` }} />
      </div>
    </div>
  );
}

// Staves in the context's colour: a desktop nobody has looked at yet.
export function Wallpaper({ asleep }: { asleep: boolean }) {
  return (
    <svg className={asleep ? "wallpaper asleep" : "wallpaper"} viewBox="0 0 320 180" preserveAspectRatio="xMidYMid slice" aria-hidden="true">
      {[0, 1, 2, 3, 4].map((i) => (
        <path key={i} d={`M-10 ${78 + i * 11} C 70 ${28 + i * 15}, 130 ${150 + i * 5}, 210 ${92 + i * 10} S 300 ${44 + i * 17}, 340 ${70 + i * 12}`} />
      ))}
      <circle cx="97" cy="108" r="5" />
      <circle cx="186" cy="113" r="5" />
      <circle cx="268" cy="90" r="5" />
    </svg>
  );
}
