// Asks before an act that cannot be taken back, and does it.
import type { ReactNode } from "react";
import { Dialog } from "./dialog";

interface Props {
  question: string;
  act: string; // on the button that does it
  keep?: string; // on the button that does not
  children: ReactNode;
  run: () => Promise<unknown>;
  onClose: () => void;
  onDone?: () => void;
  onFault: (fault: unknown) => void;
}

export function Confirm({ question, act, keep = "Keep it as it is", children, run, onClose, onDone, onFault }: Props) {
  const yes = () => {
    onClose();
    run().then(() => onDone?.(), onFault);
  };
  return (
    <Dialog title={question} onClose={onClose}>
      {children}
      <div className="answers">
        <button type="button" autoFocus onClick={onClose}>
          {keep}
        </button>
        <button type="button" className="danger" onClick={yes}>
          {act}
        </button>
      </div>
    </Dialog>
  );
}
