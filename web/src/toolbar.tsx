import type { ReactNode, Ref } from "react";
import type { DrawerName } from "./drawer";
import { Icon } from "./icons";

interface Props {
  ref: Ref<HTMLDivElement>;
  title: string;
  context: string;
  open: boolean;
  drawer: DrawerName | undefined;
  fit: boolean;
  thrown: boolean; // away with its session, in place of being reset
  onDrawer: (d: DrawerName) => void;
  onAttention: () => void;
  onFit: () => void;
  onFull: () => void;
  onReset: () => void;
  onLeave: () => void;
}

export function Toolbar(p: Props) {
  return (
    <header className="toolbar">
      <div className="where">
        <h1 className="title">{p.title}</h1>
        {p.context && <span className="context">{p.context}</span>}
      </div>
      <div className="tools" role="toolbar" aria-label="Desktop" ref={p.ref}>
        {p.open && (
          <>
            <Tool icon="apps" text="Applications" pressed={p.drawer === "apps"} onClick={() => p.onDrawer("apps")} />
            <Tool icon="clipboard" text="Clipboard" pressed={p.drawer === "clipboard"} onClick={() => p.onDrawer("clipboard")} />
            <Tool icon="files" text="Files" pressed={p.drawer === "files"} onClick={() => p.onDrawer("files")} />
            <Tool icon="keyboard" text="Keyboard" pressed={p.drawer === "keys"} onClick={() => p.onDrawer("keys")} />
            <Tool icon="attention" text="Ctrl-Alt-Del" onClick={p.onAttention} />
            <Tool icon={p.fit ? "actual" : "fit"} text={p.fit ? "Actual size" : "Fit"} onClick={p.onFit} />
            <Tool icon="full" text="Full screen" onClick={p.onFull} />
            <Tool icon={p.thrown ? "throw" : "reset"} text={p.thrown ? "Throw away" : "Reset"} onClick={p.onReset} />
            <Tool icon="leave" text="Disconnect" onClick={p.onLeave} last />
          </>
        )}
      </div>
    </header>
  );
}

interface ToolProps {
  icon: Parameters<typeof Icon>[0]["name"];
  text: string;
  pressed?: boolean;
  last?: boolean;
  onClick: () => void;
}

function Tool({ icon, text, pressed, last, onClick }: ToolProps): ReactNode {
  return (
    <button type="button" className={last ? "tool last" : "tool"} title={text} aria-label={text} aria-expanded={pressed} onClick={onClick}>
      <Icon name={icon} />
      <span>{text}</span>
    </button>
  );
}
