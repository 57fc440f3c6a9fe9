// A question that must be answered before the page goes on.
import { useEffect, useId, useRef, type ReactNode } from "react";

interface Props {
  title: string;
  wide?: boolean;
  children: ReactNode;
  onClose: () => void;
}

export function Dialog({ title, wide, children, onClose }: Props) {
  const box = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => {
    box.current?.showModal();
  }, []);
  return (
    <dialog ref={box} className={wide ? "wide" : ""} onClose={onClose} aria-labelledby={id}>
      <h2 id={id}>{title}</h2>
      {children}
    </dialog>
  );
}
