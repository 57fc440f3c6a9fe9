import { useEffect, useRef } from "react";
import { at, call } from "./call";
import type { Desktop } from "./words";

interface Props {
  desktop: Desktop;
  title: string;
  onClose: () => void;
  onDone: () => void;
  onFault: (fault: unknown) => void;
}

export function ResetDialog({ desktop: d, title, onClose, onDone, onFault }: Props) {
  const box = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    box.current?.showModal();
  }, []);
  const reset = () => {
    onClose();
    call("PATCH", at(d.metadata.project, "desktops", d.metadata.name), { spec: { resets: (d.spec.resets ?? 0) + 1 } }).then(onDone, onFault);
  };
  return (
    <dialog ref={box} onClose={onClose} aria-labelledby="reset-title">
      <h2 id="reset-title">Reset {title}?</h2>
      <p>
        It restarts with a <strong>fresh system disk</strong>. <strong>Your home folder stays</strong> as it is.
      </p>
      <p>Open programs close and unsaved work in them is lost. Anything you changed outside your home folder is gone.</p>
      <div className="answers">
        <button type="button" autoFocus onClick={onClose}>
          Keep it as it is
        </button>
        <button type="button" className="danger" onClick={reset}>
          Reset
        </button>
      </div>
    </dialog>
  );
}
