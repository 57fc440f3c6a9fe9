// What went wrong and what to do next, and the banner for a lost connection.
import { useEffect, useState } from "react";
import { tell } from "./call";
import { useEstate, type Estate } from "./estate";
import { Icon } from "./icons";

interface NoticeProps {
  fault: unknown;
  next?: Partial<Record<string, string>>; // other next steps by kind
  action?: string;
  onAction?: () => void;
}

export function Notice({ fault, next, action, onAction }: NoticeProps) {
  const t = tell(fault, next);
  return (
    <div className="notice" role="alert">
      <Icon name="alert" />
      <div>
        <p className="what">{t.what}</p>
        <p>{t.next}</p>
      </div>
      {action && onAction && (
        <button type="button" onClick={onAction}>
          {action}
        </button>
      )}
    </div>
  );
}

// A watch that comes back at once is nobody's business.
const grace = 1500;

/** Offline tells that what is shown may be old. */
export function Offline({ estate }: { estate: Estate }) {
  const { link } = useEstate(estate);
  const [shown, setShown] = useState(false);
  const down = !link.live && link.tries > 0;
  useEffect(() => {
    if (!down) {
      setShown(false);
      return;
    }
    const t = setTimeout(() => setShown(true), grace);
    return () => clearTimeout(t);
  }, [down]);
  return (
    <div role="status" aria-live="polite">
      {shown && (
        <div className="offline">
          <Icon name="alert" />
          <span>
            <strong>Consort does not answer.</strong> What you see may be out of date. <Countdown to={link.next} />
          </span>
          <button type="button" onClick={() => window.dispatchEvent(new Event("consort:retry"))}>
            Try now
          </button>
        </div>
      )}
    </div>
  );
}

export function Countdown({ to }: { to: number }) {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    const t = setInterval(() => setNow(Date.now()), 500);
    return () => clearInterval(t);
  }, []);
  const s = Math.max(0, Math.ceil((to - now) / 1000));
  return <span aria-hidden="true">{s > 0 ? `Next try in ${s} s.` : "Trying…"}</span>;
}
