// What slides in beside the guest's pixels, never over them on a wide window.
import { useEffect, useRef, useState, type KeyboardEvent } from "react";
import { Applications } from "./card";
import type { Estate } from "./estate";
import { FilesPanel } from "./files";
import { Icon } from "./icons";
import { applicationsOf, bytesOf, titleOf, type Frame } from "./telling";
import type { Desktop } from "./words";

export type DrawerName = "apps" | "clipboard" | "files" | "keys";

const titles: Record<DrawerName, string> = { apps: "Applications", clipboard: "Clipboard", files: "Files", keys: "Keyboard" };

interface Props {
  name: DrawerName;
  estate: Estate;
  desktop: Desktop | undefined;
  frame: Frame | undefined;
  text: string;
  dropped: File[]; // on the desktop, to be carried into it
  onTaken: () => void; // they are on their way
  onStart: (application: string) => void;
  onPaste: (text: string) => void;
  onKey: (keysym: number, code: string | null) => void;
  onClose: () => void;
}

export function Drawer(p: Props) {
  const box = useRef<HTMLElement>(null);
  useEffect(() => {
    box.current?.querySelector<HTMLElement>("textarea:not([readonly]), .content button, .content textarea")?.focus();
  }, [p.name]);
  const escape = (e: KeyboardEvent) => {
    if (e.key === "Escape") p.onClose();
  };
  return (
    <aside className="drawer" ref={box} aria-label={titles[p.name]} onKeyDown={escape}>
      <div className="head">
        <h2>{titles[p.name]}</h2>
        <button type="button" className="plain" aria-label="Close" onClick={p.onClose}>
          <Icon name="close" />
        </button>
      </div>
      <div className="content">
        {p.name === "apps" && <AppsPanel {...p} />}
        {p.name === "clipboard" && <ClipboardPanel frame={p.frame} text={p.text} onPaste={p.onPaste} onKey={p.onKey} />}
        {p.name === "files" && p.desktop && <FilesPanel desktop={p.desktop} frame={p.frame} dropped={p.dropped} onTaken={p.onTaken} />}
        {p.name === "keys" && <KeysPanel onKey={p.onKey} />}
      </div>
    </aside>
  );
}

function AppsPanel({ estate, desktop, onStart }: Props) {
  const list = desktop ? applicationsOf(estate, desktop) : [];
  if (!list.length) return <p className="hint">Nothing is brought to this desktop from outside. What is installed in it is in its own menu.</p>;
  return <Applications list={list} desktop={titleOf(estate, desktop!)} disabled={false} onStart={onStart} />;
}

const usualMost = 1024 * 1024;

// Keys that ask the gateway for a text where a context wants to be asked. No guest sees them.
const copyKey = 0x1008ff57; // XF86Copy
const pasteKey = 0x1008ff6d; // XF86Paste

function ClipboardPanel({ frame, text, onPaste, onKey }: Pick<Props, "frame" | "text" | "onPaste" | "onKey">) {
  const [mine, setMine] = useState("");
  const [said, setSaid] = useState("");
  // A context that is not ours to read is unknown; the gateway holds to it all the same.
  const may = frame?.clipboard ?? { in: true, out: true, gesture: false };
  const most = bytesOf(frame?.clipboard?.maxBytes, usualMost);
  const size = new TextEncoder().encode(mine).length;
  const copy = () => {
    navigator.clipboard.writeText(text).then(
      () => setSaid("Copied to this device."),
      () => setSaid("The browser did not allow it. Select the text and copy it by hand."),
    );
  };
  return (
    <>
      {may.in ? (
        <form
          onSubmit={(e) => {
            e.preventDefault();
            onPaste(mine);
            if (may.gesture) onKey(pasteKey, null);
            setSaid("Sent. Paste it in the desktop as usual.");
          }}
        >
          <label>
            To the desktop
            <textarea rows={5} value={mine} onChange={(e) => setMine(e.target.value)} placeholder="Paste text here" spellCheck={false} />
          </label>
          {size > most && <p className="trouble">That is longer than {most.toLocaleString()} bytes, the most that may cross.</p>}
          <button type="submit" disabled={!mine || size > most}>
            Send to the desktop
          </button>
        </form>
      ) : (
        <p className="hint">{frame?.title} lets no text into its desktops.</p>
      )}
      {may.out ? (
        <>
          <label>
            From the desktop
            <textarea
              rows={5} value={text} readOnly
              placeholder={may.gesture ? "Copy in the desktop, then fetch it here" : "What you copy in the desktop shows up here"}
            />
          </label>
          {may.gesture && (
            <button type="button" onClick={() => onKey(copyKey, null)}>
              Fetch from the desktop
            </button>
          )}
          <button type="button" disabled={!text} onClick={copy}>
            Copy to this device
          </button>
        </>
      ) : (
        <p className="hint">{frame?.title} lets no text out of its desktops.</p>
      )}
      <p role="status" className="hint">
        {said}
      </p>
    </>
  );
}

// Key symbols of X11 (keysymdef.h) that browsers or window managers keep for themselves.
const keys: { text: string; sym: number; code: string }[] = [
  { text: "Esc", sym: 0xff1b, code: "Escape" },
  { text: "Tab", sym: 0xff09, code: "Tab" },
  { text: "Super", sym: 0xffeb, code: "MetaLeft" },
  { text: "Print", sym: 0xff61, code: "PrintScreen" },
  { text: "F1", sym: 0xffbe, code: "F1" },
  { text: "F5", sym: 0xffc2, code: "F5" },
  { text: "F11", sym: 0xffc8, code: "F11" },
  { text: "F12", sym: 0xffc9, code: "F12" },
];

function KeysPanel({ onKey }: { onKey: (keysym: number, code: string | null) => void }) {
  const type = (text: string) => {
    for (const c of text) onKey(symbolOf(c), null);
  };
  return (
    <>
      <p className="hint">Keys your browser keeps for itself:</p>
      <div className="keys">
        {keys.map((k) => (
          <button type="button" key={k.text} onClick={() => onKey(k.sym, k.code)}>
            {k.text}
          </button>
        ))}
      </div>
      <label>
        Type here, as on a telephone
        <input
          type="text" value="" autoCapitalize="none" autoComplete="off" autoCorrect="off" spellCheck={false}
          onChange={(e) => type(e.target.value)}
          onKeyDown={(e) => {
            if (e.key === "Enter") onKey(0xff0d, "Enter");
            if (e.key === "Backspace") onKey(0xff08, "Backspace");
          }}
        />
      </label>
      <p className="hint">
        <kbd>Ctrl</kbd> <kbd>Alt</kbd> <kbd>Shift</kbd> together bring you from the desktop to this bar; <kbd>Tab</kbd> goes back.
      </p>
      <p className="hint">
        Letters arrive as your keyboard here makes them. If they come out wrong, set the desktop's own layout to the same as this device's.
      </p>
    </>
  );
}

/** symbolOf is a character's key symbol: Latin-1 is its own, the rest is Unicode with bit 24 (X11, keysyms). */
export function symbolOf(c: string): number {
  const n = c.codePointAt(0)!;
  return (n >= 0x20 && n <= 0x7e) || (n >= 0xa0 && n <= 0xff) ? n : 0x1000000 | n;
}
