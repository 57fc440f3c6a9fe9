// Asks before an act that loses open work, and does it.
import { useEffect, useRef, type ReactNode } from "react";
import { at, call } from "./call";
import type { Desktop } from "./words";

interface Props {
  question: string;
  act: string; // on the button that does it
  desktop: Desktop;
  change: Partial<Desktop["spec"]>;
  children: ReactNode;
  onClose: () => void;
  onDone?: () => void;
  onFault: (fault: unknown) => void;
}

export function Confirm({ question, act, desktop: d, change, children, onClose, onDone, onFault }: Props) {
  const box = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    box.current?.showModal();
  }, []);
  const yes = () => {
    onClose();
    call("PATCH", at(d.metadata.project, "desktops", d.metadata.name), { spec: change }).then(() => onDone?.(), onFault);
  };
  return (
    <dialog ref={box} onClose={onClose} aria-labelledby="question">
      <h2 id="question">{question}</h2>
      {children}
      <div className="answers">
        <button type="button" autoFocus onClick={onClose}>
          Keep it as it is
        </button>
        <button type="button" className="danger" onClick={yes}>
          {act}
        </button>
      </div>
    </dialog>
  );
}
