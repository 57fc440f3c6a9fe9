// A pool as its persons see it: any free seat, at once.
import { useState, type CSSProperties } from "react";
import { Afresh } from "./afresh";
import { at, call, sentence } from "./call";
import { Wallpaper } from "./card";
import { Confirm } from "./confirm";
import type { Estate } from "./estate";
import { Icon } from "./icons";
import { Notice } from "./notice";
import { coloursOf, frameOf, lastsASession, poolTitleOf, queueOf, seatOf, seatToBe, seatsOf } from "./telling";
import type { Pool, Session } from "./words";

interface Props {
  estate: Estate;
  pool: Pool;
  person: string | undefined;
  onConnect: () => void;
}

export function PoolCard({ estate, pool: p, person, onConnect }: Props) {
  const [asking, setAsking] = useState(false);
  const [fault, setFault] = useState<unknown>();
  const title = poolTitleOf(estate, p);
  const seat = seatOf(estate, p, person);
  const session = sessionOf(estate, p, person);
  const queue = seat ? undefined : queueOf(session, Date.now());
  const frame = frameOf(estate, seat ?? seatToBe(p));
  const thrown = lastsASession(estate, seat ?? seatToBe(p));
  const state = seat ? ({ text: "You have a seat", tone: "good" } as const) : queue ? ({ text: `Your place: ${queue.place} of ${queue.of}`, tone: "busy" } as const) : seatsOf(p);
  const act = seat && thrown ? "Throw away" : "Leave";
  const id = `pool-${p.metadata.project}-${p.metadata.name}`;
  return (
    <article className="card" style={coloursOf(frame) as CSSProperties} aria-labelledby={id}>
      <div className="screen">
        <span className="context">{frame.title}</span>
        <Wallpaper asleep={!seat} />
        <span className={`state ${state.tone}`}>{state.text}</span>
      </div>
      <div className="body">
        <h2 id={id}>{title}</h2>
        <p className="about">{thrown ? "A fresh one each time. Nothing that you do on it stays." : "Any free seat. What you save on it is gone when you leave."}</p>
        {queue && <p className="waiting">{sentence(queue.wait)}</p>}
        {fault !== undefined && <Notice fault={fault} action="Close" onAction={() => setFault(undefined)} />}
        <div className="acts">
          <button type="button" className="connect" disabled={!!p.metadata.deleting} onClick={onConnect} aria-label={`Connect to ${title}`}>
            Connect
          </button>
          {session && (
            <button type="button" className="off" onClick={() => setAsking(true)} aria-label={`${act} ${title}`} title={act}>
              <Icon name={seat && thrown ? "throw" : "leave"} />
            </button>
          )}
        </div>
        {asking && seat && thrown && <Afresh estate={estate} desktop={seat} title={title} onClose={() => setAsking(false)} onFault={setFault} />}
        {asking && session && !(seat && thrown) && (
          <Confirm
            question={seat ? `Leave your seat of ${title}?` : `Leave the queue for ${title}?`} act="Leave" onClose={() => setAsking(false)} onFault={setFault}
            run={() => call("PATCH", at(session.metadata.project, "sessions", session.metadata.name), { spec: { end: true } })}
          >
            <p>{seat ? "The seat is destroyed, with everything that is saved on it." : "Who comes back later waits behind the others."}</p>
          </Confirm>
        )}
      </div>
    </article>
  );
}

/** sessionOf is the person's session that goes on, on a seat or in the queue. */
function sessionOf(estate: Estate, p: Pool, person: string | undefined): Session | undefined {
  return estate.all("Session").find(
    (s) =>
      s.metadata.project === p.metadata.project && s.spec.pool === p.metadata.name && s.spec.person === person && !!person &&
      !s.spec.end && s.status?.state !== "ended" && !s.metadata.deleting,
  );
}
