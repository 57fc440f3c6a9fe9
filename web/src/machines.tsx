// What runs on a hypervisor: machines of ours, and those that were there before us.
import { useState } from "react";
import { Link } from "wouter";
import { AdoptBox } from "./adopt";
import { at, call, sentence } from "./call";
import { Confirm } from "./confirm";
import type { Estate } from "./estate";
import { Icon } from "./icons";
import { MoveButton } from "./movebox";
import { amount, driftOf, subjectOf } from "./moving";
import { Notice } from "./notice";
import { bytesOf } from "./telling";
import type { Found, Hypervisor, Machine } from "./words";

/** Machines are ours that are placed there. */
export function Machines({ estate, hypervisor }: { estate: Estate; hypervisor: string }) {
  const [fault, setFault] = useState<unknown>();
  const ours = estate.all("Machine").filter((m) => m.spec.hypervisor === hypervisor);
  if (!ours.length) return <p className="about">No machine of ours is on it.</p>;
  return (
    <>
      <h3>
        {ours.length} {ours.length === 1 ? "machine" : "machines"}
      </h3>
      <ul className="machines" aria-label={`Machines on ${hypervisor}`}>
        {ours.map((m) => (
          <li key={m.metadata.uid ?? `${m.metadata.project}/${m.metadata.name}`}>
            <Ours estate={estate} machine={m} onFault={setFault} />
          </li>
        ))}
      </ul>
      {fault !== undefined && <Notice fault={fault} action="Close" onAction={() => setFault(undefined)} />}
    </>
  );
}

const powers: Record<string, string> = { on: "good", unknown: "bad" };

function Ours({ estate, machine: m, onFault }: { estate: Estate; machine: Machine; onFault: (fault: unknown) => void }) {
  const [asking, setAsking] = useState(false);
  const { project, name } = m.metadata;
  const title = subjectOf(estate, project, name);
  const power = m.status?.power ?? "no word"; // its agent has not told yet
  const drift = driftOf(m);
  const about = [title !== name && name, project, m.spec.adopted && "adopted"].filter(Boolean).join(" · ");
  return (
    <>
      <div className="machine">
        <span className={`state ${powers[power] ?? ""}`}>{power}</span>
        <span>
          <strong>{title}</strong> <span className="about">{about}</span>
        </span>
        {m.spec.moving ? (
          <Link href="/moves" className="state busy">
            on its way to {m.spec.moving.to}
          </Link>
        ) : m.spec.adopted ? (
          <button type="button" className="go" onClick={() => setAsking(true)} aria-label={`Give back ${title}`}>
            Give back
          </button>
        ) : (
          <MoveButton estate={estate} kind="machines" project={project} name={name} title={title} from={m.spec.hypervisor!} text="Move…" />
        )}
      </div>
      {drift && (
        <p className="remark">
          <Icon name="alert" />
          <span>
            <strong>Somebody changed it.</strong> {drift}
          </span>
        </p>
      )}
      {asking && (
        <Confirm
          question={`Give ${title} back?`} act="Give it back" run={() => call("DELETE", at(project, "machines", name))}
          onClose={() => setAsking(false)} onFault={onFault}
        >
          <p>It goes on as it is, with its disks. Consort only shows it then, and no longer turns it on or off.</p>
        </Confirm>
      )}
    </>
  );
}

/** Strangers are machines that nobody has adopted. */
export function Strangers({ estate, hypervisor: h }: { estate: Estate; hypervisor: Hypervisor }) {
  const [chosen, setChosen] = useState<Found>();
  const found = h.status?.found ?? [];
  if (!found.length) return null;
  return (
    <details>
      <summary>
        {found.length} {found.length === 1 ? "machine is" : "machines are"} not ours
      </summary>
      <ul className="machines" aria-label={`Machines on ${h.metadata.name} that are not ours`}>
        {found.map((f) => (
          <li key={f.id}>
            <div className="machine">
              <span className={`state ${powers[f.power] ?? ""}`}>{f.power}</span>
              <span>
                <strong>{f.name}</strong> <span className="about">{sizeOf(f)}</span>
              </span>
              {!f.obstacle && (
                <button type="button" className="go" onClick={() => setChosen(f)} aria-label={`Adopt ${f.name}…`}>
                  Adopt…
                </button>
              )}
            </div>
            {f.obstacle && <p className="about">{sentence(`cannot be adopted: ${f.obstacle}`)}</p>}
          </li>
        ))}
      </ul>
      {chosen && <AdoptBox estate={estate} hypervisor={h.metadata.name} found={chosen} onClose={() => setChosen(undefined)} />}
    </details>
  );
}

function sizeOf(f: Found): string {
  const disks = f.disks?.length ?? 0;
  const memory = bytesOf(f.memory, 0);
  return [
    f.cpus && `${f.cpus} ${f.cpus === 1 ? "processor" : "processors"}`, memory && amount(memory), disks && `${disks} ${disks === 1 ? "disk" : "disks"}`,
  ].filter(Boolean).join(" · ");
}
