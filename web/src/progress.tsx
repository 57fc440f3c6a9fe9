// What a person sees while there are no pixels.
import { useEffect, useState } from "react";
import { Bar } from "./card";
import { sentence } from "./call";
import type { Estate } from "./estate";
import { Icon } from "./icons";
import { Countdown } from "./notice";
import { duration, queueOf, stepsOf, troubleOf, workOf, type Step } from "./telling";
import type { Stage } from "./visit";
import type { Desktop, Session } from "./words";

interface WaitingProps {
  estate: Estate;
  desktop: Desktop | undefined;
  title: string;
  stage: Extract<Stage, { name: "waiting" | "opening" }>;
  onCancel: () => void;
}

export function Waiting({ estate, desktop, title, stage, onCancel }: WaitingProps) {
  const now = useNow(200);
  const [since] = useState(Date.now);
  const steps = stepsOf(stage.session, now);
  const work = desktop && stage.name === "waiting" ? workOf(estate, desktop) : undefined;
  const trouble = desktop ? troubleOf(desktop) : "";
  const waiting = stage.session?.status?.waiting || desktop?.status?.waiting || "";
  const shown = stage.name === "opening" ? [...steps.map(finished), opening] : steps;
  const queue = queueOf(stage.session, now);
  const said = sentence(stage.name === "opening" ? opening.text : waiting || "asking for your desktop");
  const current = sentence(shown.find((s) => s.state === "now")?.text ?? ""); // said once is enough for the eye
  return (
    <div className="panel waiting-panel">
      <h2>{stage.name === "opening" ? `Opening ${title}` : `Connecting to ${title}`}</h2>
      <p className={said === current ? "unseen" : "quiet"} role="status" aria-live="polite">
        {said}
      </p>
      {shown.length > 0 && (
        <ol className="steps" aria-label="Progress">
          {shown.map((s) => (
            <StepLine key={s.name} step={s} />
          ))}
        </ol>
      )}
      {queue && (
        <dl className="queue" aria-label="Your place in the queue">
          <div>
            <dt>Your place</dt>
            <dd>
              {queue.place} <small>of {queue.of}</small>
            </dd>
          </div>
          <div>
            <dt>Until you have a seat</dt>
            <dd>
              {queue.wait}
              {queue.remark && <small className="guess">{queue.remark}</small>}
            </dd>
          </div>
        </dl>
      )}
      {!shown.length && <div className="track endless" role="progressbar" aria-label="Working" />}
      {work && <Bar percent={work.work.percent} text={`${work.what}: ${work.work.phase} (${work.work.step} of ${work.work.steps})`} />}
      {trouble && trouble !== said && (
        <p className="trouble" role="alert">
          <Icon name="alert" /> <span>{trouble}</span>
        </p>
      )}
      <div className="foot">
        <span className="quiet elapsed">{duration((now - since) / 1000)}</span>
        <button type="button" onClick={onCancel}>
          Cancel <kbd>Esc</kbd>
        </button>
      </div>
    </div>
  );
}

const opening: Step = { name: "First frame", text: "Fetching the first picture", state: "now", seconds: undefined };

function finished(s: Step): Step {
  return s.state === "now" ? { ...s, state: "done" } : s;
}

export function StepLine({ step: s }: { step: Step }) {
  return (
    <li className={s.state} aria-current={s.state === "now" ? "step" : undefined}>
      <span className="dot" aria-hidden="true">
        {s.state === "done" ? <Icon name="check" /> : s.state === "now" ? <span className="spinner" /> : null}
      </span>
      <span className="what">{s.text || s.name}</span>
      <span className="time">
        {s.text && <span className="phase">{s.name.toLowerCase()}</span>}
        {s.seconds !== undefined && <span className="took">{duration(s.seconds)}</span>}
      </span>
    </li>
  );
}

export function Dropped({ next, onLeave }: { next: number; onLeave: () => void }) {
  return (
    <div className="panel" role="alert">
      <h2>The connection dropped</h2>
      <p className="quiet">
        Your desktop goes on running. <Countdown to={next} />
      </p>
      <div className="track endless" role="progressbar" aria-label="Reconnecting" />
      <div className="foot">
        <span />
        <button type="button" onClick={onLeave}>
          Leave it
        </button>
      </div>
    </div>
  );
}

export function Ended({ because, onAgain, onLeave }: { because: string; onAgain: () => void; onLeave: () => void }) {
  return (
    <div className="panel" role="alert">
      <h2>This session has ended</h2>
      <p className="quiet">{sentence(because) || "Your files are kept in your home folder."}</p>
      <div className="foot">
        <button type="button" className="plain" onClick={onLeave}>
          Back to your desktops
        </button>
        <button type="button" className="primary" onClick={onAgain}>
          Connect again
        </button>
      </div>
    </div>
  );
}

export function Elsewhere({ session, desktop, onLeave }: { session: Session; desktop: string; onLeave: () => void }) {
  const way = session.status?.way?.name ?? session.spec.presentation ?? "";
  return (
    <div className="panel">
      <h2>It opens outside the browser</h2>
      <p className="quiet">Your desktop is ready, but {way || "its presentation"} cannot be shown in a page yet. On a computer with the command line, run:</p>
      <pre>
        <code>consort connect {desktop}</code>
      </pre>
      <div className="foot">
        <span />
        <button type="button" onClick={onLeave}>
          Back to your desktops
        </button>
      </div>
    </div>
  );
}

export function useNow(every: number): number {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    const t = setInterval(() => setNow(Date.now()), every);
    return () => clearInterval(t);
  }, [every]);
  return now;
}
