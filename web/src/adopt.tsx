// Makes a machine that was there before us one of ours, after saying what that means.
import { useEffect, useState, type FormEvent } from "react";
import { at, call } from "./call";
import { Dialog } from "./dialog";
import type { Estate } from "./estate";
import { amount } from "./moving";
import { Notice } from "./notice";
import { bytesOf } from "./telling";
import type { Found, Machine } from "./words";

interface Props {
  estate: Estate;
  hypervisor: string;
  found: Found;
  onClose: () => void;
}

const pause = 250; // milliseconds without a key before a name is asked about

export function AdoptBox({ estate, hypervisor, found, onClose }: Props) {
  const projects = projectsOf(estate);
  const [project, setProject] = useState(projects.includes("default") ? "default" : (projects[0] ?? "default"));
  const [name, setName] = useState(() => nameFrom(found.name));
  const [would, setWould] = useState<Machine>();
  const [fault, setFault] = useState<unknown>();
  const [busy, setBusy] = useState(false);
  const path = at(undefined, "hypervisors", hypervisor, "adopt");

  useEffect(() => {
    const stop = new AbortController();
    setWould(undefined);
    setFault(undefined);
    const t = setTimeout(() => {
      call<Machine>("POST", path, { id: found.id, project, name, dryRun: true }, stop.signal).then(setWould, (f: unknown) => !stop.signal.aborted && setFault(f));
    }, pause);
    return () => {
      clearTimeout(t);
      stop.abort();
    };
  }, [path, found.id, project, name]);

  const adopt = (e: FormEvent) => {
    e.preventDefault();
    setBusy(true);
    call<Machine>("POST", path, { id: found.id, project, name }).then(
      (m) => {
        estate.put(m);
        onClose();
      },
      (f: unknown) => {
        setFault(f);
        setBusy(false);
      },
    );
  };
  return (
    <Dialog title={`Adopt ${found.name}`} onClose={onClose}>
      <form onSubmit={adopt} className="ask">
        <p className="quiet">Its guest notices nothing, and it can be given back as it is. From then on it is turned on and off from here.</p>
        <label>
          Name here
          <input type="text" required value={name} spellCheck={false} autoComplete="off" onChange={(e) => setName(e.target.value)} />
        </label>
        <label>
          Project
          <select value={project} onChange={(e) => setProject(e.target.value)}>
            {projects.map((p) => (
              <option key={p}>{p}</option>
            ))}
          </select>
        </label>
        <div role="status">{would && <Would machine={would} />}</div>
        {fault !== undefined && <Notice fault={fault} />}
        <div className="answers">
          <button type="button" onClick={onClose}>
            Leave it alone
          </button>
          <button type="submit" className="primary" disabled={busy || !would}>
            Adopt it
          </button>
        </div>
      </form>
    </Dialog>
  );
}

function Would({ machine: m }: { machine: Machine }) {
  const hw = m.spec.hardware;
  const disks = (hw.disks ?? []).map((d) => (d.size ? `${d.name} (${amount(bytesOf(d.size, 0))})` : d.name));
  return (
    <dl className="facts">
      <dt>Power</dt>
      <dd>stays {m.spec.power}</dd>
      <dt>Hardware</dt>
      <dd>
        {hw.cpus} {hw.cpus === 1 ? "processor" : "processors"}, {amount(bytesOf(hw.memory, 0))} of memory
      </dd>
      <dt>Disks</dt>
      <dd>{disks.join(", ") || "none"}: never deleted by Consort</dd>
    </dl>
  );
}

/** projectsOf are the projects a machine can be put in. */
function projectsOf(estate: Estate): string[] {
  const names = [...estate.all("Project").map((p) => p.metadata.name), ...estate.all("Machine").map((m) => m.metadata.project ?? "")];
  return [...new Set(names.filter(Boolean))].sort();
}

/** nameFrom makes of a vendor's name one that can be had here: lower-case letters, digits and dashes. */
export function nameFrom(theirs: string): string {
  return theirs
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "-")
    .slice(0, 63)
    .replace(/^-+|-+$/g, "");
}
