// What an administrator sees of the places where machines run: what each can
// do, how that came to be believed, and what was there before us.
import { useEffect } from "react";
import { Link } from "wouter";
import { useEstate, type Estate } from "./estate";
import { Mark } from "./icons";
import { Offline } from "./notice";
import type { CapabilityReport, Hypervisor } from "./words";

const tones: Record<string, string> = { ready: "good", draining: "busy", lost: "bad" };

/** beliefs say in words what a badge shows by its shape. */
const beliefs: Record<string, string> = {
  verified: "verified: shown on a real part of this version",
  declared: "declared: the provider says so",
  simulated: "simulated: shown on a simulator only",
};

export function Hypervisors({ estate }: { estate: Estate }) {
  useEstate(estate);
  useEffect(() => {
    document.title = "Hypervisors · Consort";
  }, []);
  const all = estate.all("Hypervisor");
  return (
    <div className="home">
      <header>
        <Link href="/" className="brand">
          <Mark /> Consort
        </Link>
        <nav aria-label="You">
          <Link href="/" className="button plain">
            Desktops
          </Link>
        </nav>
      </header>
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
              <Host hypervisor={h} />
            </li>
          ))}
        </ul>
        {all.length > 0 && <Legend />}
      </main>
    </div>
  );
}

function Host({ hypervisor: h }: { hypervisor: Hypervisor }) {
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
      {types(h).map((type) => (
        <Badges key={type} type={type} reports={(s.capabilities ?? []).filter((c) => (c.guestType ?? "") === type)} />
      ))}
      {!!s.found?.length && (
        <details>
          <summary>
            {s.found.length} {s.found.length === 1 ? "machine is" : "machines are"} not ours
          </summary>
          <ul className="found">
            {s.found.map((f) => (
              <li key={f.id}>
                <strong>{f.name}</strong> {f.power} {f.obstacle && <span className="about">cannot be adopted: {f.obstacle}</span>}
                <br />
                {!f.obstacle && <code>{`consort adopt ${h.metadata.name} ${f.id}`}</code>}
              </li>
            ))}
          </ul>
        </details>
      )}
    </article>
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
