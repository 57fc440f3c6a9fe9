// Empties a hypervisor: what can move moves, and what cannot is named with the reason.
import { useEffect, useState } from "react";
import { Link } from "wouter";
import { at, call } from "./call";
import { Dialog } from "./dialog";
import { useEstate, type Estate } from "./estate";
import { Reasons } from "./movebox";
import { subjectOf } from "./moving";
import { Notice } from "./notice";
import type { DrainReply, Hypervisor, MoveReply } from "./words";

interface Props {
  estate: Estate;
  hypervisor: Hypervisor;
  onClose: () => void;
}

type State = { name: "asking" } | { name: "told"; moves: MoveReply[] } | { name: "begun"; moves: MoveReply[] } | { name: "broken"; fault: unknown };

export function DrainBox({ estate, hypervisor: h, onClose }: Props) {
  useEstate(estate);
  const [state, setState] = useState<State>({ name: "asking" });
  const name = h.metadata.name;
  const path = at(undefined, "hypervisors", name, "drain");
  useEffect(() => {
    const stop = new AbortController();
    call<DrainReply>("POST", path, { dryRun: true }, stop.signal).then(
      (r) => setState({ name: "told", moves: r.moves ?? [] }),
      (fault: unknown) => !stop.signal.aborted && setState({ name: "broken", fault }),
    );
    return () => stop.abort();
  }, [path]);
  const begin = () => {
    setState({ name: "asking" });
    call<DrainReply>("POST", path, {}).then(
      (r) => setState({ name: "begun", moves: r.moves ?? [] }),
      (fault: unknown) => setState({ name: "broken", fault }),
    );
  };
  return (
    <Dialog title={h.spec.drain ? `What is left on ${name}` : `Drain ${name}`} wide onClose={onClose}>
      {state.name !== "begun" && (
        <p className="quiet">Nothing new is placed on it from then on, and each machine goes to where there is most room of those that can take it. It is shut down for that.</p>
      )}
      {state.name === "asking" && <div className="track endless" role="progressbar" aria-label="Asking about every machine" />}
      {state.name === "broken" && <Notice fault={state.fault} />}
      {(state.name === "told" || state.name === "begun") && <Fates estate={estate} moves={state.moves} begun={state.name === "begun"} />}
      <div className="answers">
        <button type="button" autoFocus onClick={onClose}>
          {state.name === "begun" ? "Close" : "Leave it as it is"}
        </button>
        {state.name === "begun" ? (
          <Link href="/moves" className="button primary">
            See the moves
          </Link>
        ) : (
          <button type="button" className="primary" disabled={state.name !== "told"} onClick={begin}>
            {h.spec.drain ? "Move what can move" : `Drain ${name}`}
          </button>
        )}
      </div>
    </Dialog>
  );
}

/** Fates are what becomes of every machine on it. */
function Fates({ estate, moves, begun }: { estate: Estate; moves: MoveReply[]; begun: boolean }) {
  const going = moves.filter((m) => !m.obstacles?.length);
  const staying = moves.filter((m) => m.obstacles?.length);
  const titleOf = (m: MoveReply) => subjectOf(estate, m.machine.project, m.machine.name);
  const keyOf = (m: MoveReply) => `${m.machine.project}/${m.machine.name}`;
  if (!moves.length) return <p role="status">No machine of ours is on it.</p>;
  return (
    <div className="fates" role="status">
      {going.length > 0 && (
        <section>
          <h3>{begun ? `${going.length} on the way` : `${going.length} can move`}</h3>
          <ul>
            {going.map((m) => (
              <li key={keyOf(m)}>
                <strong>{titleOf(m)}</strong> <span className="about">to {m.to}</span>
                {!!m.notes?.length && <Reasons list={m.notes} remark />}
              </li>
            ))}
          </ul>
        </section>
      )}
      {staying.length > 0 && (
        <section>
          <h3>{staying.length === 1 ? "1 stays" : `${staying.length} stay`}</h3>
          <ul>
            {staying.map((m) => (
              <li key={keyOf(m)}>
                <strong>{titleOf(m)}</strong>
                <Reasons list={m.obstacles!} />
              </li>
            ))}
          </ul>
        </section>
      )}
    </div>
  );
}
