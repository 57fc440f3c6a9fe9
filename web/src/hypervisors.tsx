// What an administrator sees of the places where machines run: what each can
// do, how that came to be believed, what runs there, and what was there before us.
import { useEffect, useState } from "react";
import { at, call } from "./call";
import { DrainBox } from "./drain";
import { useEstate, type Estate } from "./estate";
import { Machines, Strangers } from "./machines";
import { Masthead, type MastheadProps } from "./masthead";
import { Notice, Offline } from "./notice";
import type { CapabilityReport, Hypervisor } from "./words";

const tones: Record<string, string> = { ready: "good", draining: "busy", lost: "bad" };

/** beliefs say in words what a badge shows by its shape. */
const beliefs: Record<string, string> = {
  verified: "verified: shown on a real part of this version",
  declared: "declared: the provider says so",
  simulated: "simulated: shown on a simulator only",
};

export function Hypervisors(p: MastheadProps) {
  const { estate } = p;
  useEstate(estate);
  useEffect(() => {
    document.title = "Hypervisors · Consort";
  }, []);
  const all = estate.all("Hypervisor");
  return (
    <div className="home">
      <Masthead {...p} here="/hypervisors" />
      <Offline estate={estate} />
      <main>
        <h1>Hypervisors</h1>
        {estate.loaded && all.length === 0 && (
          <div className="empty">
            <h2>No hypervisor yet</h2>
            <p>
              Machines need a place to run. Let a host join:
              <br />
              <code>consort hypervisor token NAME</code>
            </p>
          </div>
        )}
        <ul className="hosts">
          {all.map((h) => (
            <li key={h.metadata.name}>
              <Host estate={estate} hypervisor={h} />
            </li>
          ))}
        </ul>
        {all.length > 0 && <Legend />}
      </main>
    </div>
  );
}

function Host({ estate, hypervisor: h }: { estate: Estate; hypervisor: Hypervisor }) {
  const s = h.status ?? {};
  const state = s.state ?? "not joined";
  const id = `host-${h.metadata.name}`;
  const about = [h.spec.provider, s.product, s.accelerator && `guests run by ${s.accelerator}`].filter(Boolean).join(" · ");
  return (
    <article className="host" aria-labelledby={id}>
      <div className="title">
        <h2 id={id}>{h.metadata.name}</h2>
        <span className={`state ${tones[state] ?? ""}`}>{state}</span>
      </div>
      <p className="about">{about}</p>
      {s.because && <p className="about">{s.because}</p>}
      {s.waiting && <p className="waiting">{s.waiting}</p>}
      <Machines estate={estate} hypervisor={h.metadata.name} />
      <Strangers estate={estate} hypervisor={h} />
      <details className="abilities" open>
        <summary>What it can do</summary>
        {types(h).map((type) => (
          <Badges key={type} type={type} reports={(s.capabilities ?? []).filter((c) => (c.guestType ?? "") === type)} />
        ))}
      </details>
      <Upkeep estate={estate} hypervisor={h} />
    </article>
  );
}

/** Upkeep empties a hypervisor and takes it into use again. */
function Upkeep({ estate, hypervisor: h }: { estate: Estate; hypervisor: Hypervisor }) {
  const [asking, setAsking] = useState(false);
  const [fault, setFault] = useState<unknown>();
  const name = h.metadata.name;
  const back = () => {
    call("POST", at(undefined, "hypervisors", name, "undrain"), {}).then(() => setFault(undefined), setFault);
  };
  return (
    <>
      {fault !== undefined && <Notice fault={fault} action="Close" onAction={() => setFault(undefined)} />}
      <div className="acts">
        {h.spec.drain && <span className="about">It is drained: nothing new is placed on it.</span>}
        <button type="button" onClick={() => setAsking(true)}>
          {h.spec.drain ? "What is left…" : "Drain…"}
          <span className="unseen"> {name}</span>
        </button>
        {h.spec.drain && (
          <button type="button" onClick={back}>
            Take {name} back into use
          </button>
        )}
      </div>
      {asking && <DrainBox estate={estate} hypervisor={h} onClose={() => setAsking(false)} />}
    </>
  );
}

/** types are the types of guest about which something is said, every type first. */
function types(h: Hypervisor): string[] {
  return [...new Set((h.status?.capabilities ?? []).map((c) => c.guestType ?? ""))].sort();
}

function Badges({ type, reports }: { type: string; reports: CapabilityReport[] }) {
  const order = [...reports].sort((a, b) => Number(b.has) - Number(a.has) || a.name.localeCompare(b.name));
  return (
    <>
      {type && <h3>{type} guests</h3>}
      <ul className="badges" aria-label={type ? `What ${type} guests can do` : "What it can do"}>
        {order.map((c) => (
          <li key={c.name} className={`badge ${c.has ? (c.evidence ?? "declared") : "absent"}`} title={told(c)}>
            {c.name}
            {c.has && c.value ? `: ${c.value}` : ""}
            <span className="unseen">, {told(c)}</span>
          </li>
        ))}
      </ul>
    </>
  );
}

function told(c: CapabilityReport): string {
  if (!c.has) return `absent: ${c.reason ?? "nobody says why"}`;
  return [beliefs[c.evidence ?? "declared"], c.reason].filter(Boolean).join("; ");
}

function Legend() {
  return (
    <ul className="badges legend" aria-label="What the badges mean">
      {Object.entries(beliefs).map(([name, text]) => (
        <li key={name} className={`badge ${name}`}>
          {text}
        </li>
      ))}
      <li className="badge absent">absent: it cannot, and says why</li>
    </ul>
  );
}
