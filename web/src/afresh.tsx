// Has a desktop begin afresh: one that is kept gets a fresh system disk, one that
// lasts as long as a session is thrown away and another takes its place.
import { at, call } from "./call";
import { Confirm } from "./confirm";
import type { Estate } from "./estate";
import { lastsASession } from "./telling";
import type { Desktop } from "./words";

interface Props {
  estate: Estate;
  desktop: Desktop;
  title: string;
  onClose: () => void;
  onDone?: () => void;
  onFault: (fault: unknown) => void;
}

export function Afresh({ estate, desktop: d, title, ...on }: Props) {
  if (!lastsASession(estate, d)) {
    return (
      <Confirm question={`Reset ${title}?`} act="Reset" run={() => reset(d)} {...on}>
        <p>
          It restarts with a <strong>fresh system disk</strong>. <strong>Your home folder stays</strong> as it is.
        </p>
        <p>Open programs close and unsaved work in them is lost. Anything you changed outside your home folder is gone.</p>
      </Confirm>
    );
  }
  return (
    <Confirm question={`Throw away ${title}?`} act="Throw away" run={() => (d.spec.pool ? leave(estate, d) : reset(d))} {...on}>
      <p>
        A <strong>fresh one</strong> takes its place. <strong>Everything on this one is gone for good</strong>: files, downloads, what the browser knows. Its key is
        destroyed, so nobody can bring it back.
      </p>
    </Confirm>
  );
}

function reset(d: Desktop): Promise<unknown> {
  return call("PATCH", at(d.metadata.project, "desktops", d.metadata.name), { spec: { resets: (d.spec.resets ?? 0) + 1 } });
}

/** leave ends every session on a seat, and with them the seat. */
function leave(estate: Estate, d: Desktop): Promise<unknown> {
  const on = estate.all("Session").filter((s) => s.metadata.project === d.metadata.project && s.spec.desktop === d.metadata.name && s.status?.state !== "ended");
  return Promise.all(on.map((s) => call("PATCH", at(s.metadata.project, "sessions", s.metadata.name), { spec: { end: true } })));
}
