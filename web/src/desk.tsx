// One desktop, or a seat of a pool, in the page: a bar and a frame in its context's colour, and the
// guest's pixels inside. Nothing of ours is drawn over those while it is open.
import { useCallback, useEffect, useRef, useState, type CSSProperties } from "react";
import { useLocation } from "wouter";
import { Afresh } from "./afresh";
import { at, call } from "./call";
import { Drawer, type DrawerName } from "./drawer";
import { useEstate, type Estate } from "./estate";
import { Notice, Offline } from "./notice";
import { keepPicture } from "./pictures";
import { Dropped, Elsewhere, Ended, Waiting } from "./progress";
import { coloursOf, frameOf, lastsASession, poolTitleOf, seatToBe, titleOf } from "./telling";
import { Toolbar } from "./toolbar";
import { Visit, wait, type OpenScreen, type Stage } from "./visit";

// Viewers by the protocol they speak, loaded when first needed.
const viewers: Record<string, () => Promise<OpenScreen>> = {
  rfb: () => import("./screen").then((m) => m.openScreen),
};

function tunnel(): string {
  return `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/v1/tunnel`;
}

interface Props {
  estate: Estate;
  project: string;
  name?: string; // of the desktop
  pool?: string; // in place of it
}

export function Desk({ estate, project, name: desk = "", pool }: Props) {
  useEstate(estate);
  const [, navigate] = useLocation();
  const [stage, setStage] = useState<Stage>({ name: "waiting" });
  const [name, setName] = useState(desk); // of a seat: known once there is one
  const [drawer, setDrawer] = useState<DrawerName>();
  const [resetting, setResetting] = useState(false);
  const [fit, setFit] = useState(true);
  const [dropped, setDropped] = useState<File[]>([]); // on the desktop, not carried yet
  const [text, setText] = useState(""); // the last text from the desktop
  const [said, setSaid] = useState<{ text?: string; fault?: unknown }>();
  const [round, setRound] = useState(0);
  const page = useRef<HTMLDivElement>(null);
  const bar = useRef<HTMLDivElement>(null);
  const target = useRef<HTMLDivElement>(null);
  const visit = useRef<Visit>(null);
  const wanted = useRef<string>((history.state as { start?: string } | null)?.start);

  const start = useCallback(
    (application: string) => {
      const title = estate.get("Application", project, application)?.spec.title ?? application;
      setSaid({ text: `Starting ${title}…` });
      call("POST", at(project, "desktops", name, "start"), { application }).then(
        () => setSaid({ text: `${title} is running.` }),
        (fault: unknown) => setSaid({ fault }),
      );
    },
    [estate, project, name],
  );

  // A seat's name comes with the session; the visit does not begin anew for it.
  const latest = useRef({ name, start });
  latest.current = { name, start };
  useEffect(() => {
    const v = new Visit({
      estate, project, desktop: desk, ...(pool ? { pool } : {}), target: target.current!, url: tunnel(), viewers, wait, now: Date.now,
      on: (s) => {
        setStage(s);
        if ("session" in s && s.session?.spec.desktop) setName(s.session.spec.desktop);
        if (s.name !== "open") return;
        v.screen?.focus();
        if (wanted.current) latest.current.start(wanted.current);
        wanted.current = undefined;
      },
      clipboard: setText,
    });
    visit.current = v;
    // One turn later, so that an effect undone at once (as React does to try us) asks for nothing.
    const t = setTimeout(() => void v.run(), 0);
    return () => {
      clearTimeout(t);
      keep(estate, project, latest.current.name, v);
      void v.leave(false);
    };
  }, [estate, project, desk, pool, round]);

  const leave = useCallback(() => {
    keep(estate, project, name, visit.current);
    void visit.current?.leave(true);
    navigate("/");
  }, [navigate, estate, project, name]);

  const open = stage.name === "open";
  useKeys(page, open, () => {
    visit.current?.screen?.leave();
    bar.current?.querySelector<HTMLElement>("button")?.focus();
  });
  useEscape(stage.name === "waiting" || stage.name === "opening", leave);
  useEffect(() => {
    if (!said || said.fault) return;
    const t = setTimeout(() => setSaid(undefined), 4000);
    return () => clearTimeout(t);
  }, [said]);

  const desktop = estate.get("Desktop", project, name);
  const asked = pool ? estate.get("Pool", project, pool) : undefined;
  const title = desktop ? titleOf(estate, desktop) : asked ? poolTitleOf(estate, asked) : name || pool || "";
  useEffect(() => {
    document.title = `${title} · Consort`;
  }, [title]);
  const seat = desktop ?? (asked && seatToBe(asked)); // who waits for one sees its colour already
  const frame = seat ? frameOf(estate, seat) : undefined;
  const thrown = !!seat && lastsASession(estate, seat);
  const colours = (frame ? coloursOf(frame) : {}) as CSSProperties;
  const choose = (d: DrawerName | undefined) => {
    setDrawer((was) => (was === d ? undefined : d));
  };
  const close = () => {
    setDrawer(undefined);
    visit.current?.screen?.focus();
  };
  const again = () => setRound((n) => n + 1);

  return (
    <div className="desk" ref={page} style={colours} data-stage={stage.name}>
      <Toolbar
        ref={bar} title={title} context={frame?.title ?? ""} open={open} drawer={drawer} fit={fit} thrown={thrown}
        onDrawer={choose}
        onAttention={() => {
          visit.current?.screen?.secureAttention();
          visit.current?.screen?.focus();
        }}
        onFit={() => {
          visit.current?.screen?.fit(!fit);
          setFit(!fit);
        }}
        onFull={() => void toggleFull(page.current!)}
        onReset={() => setResetting(true)}
        onLeave={leave}
      />
      <Offline estate={estate} />
      <div className="said" role="status" aria-live="polite">
        {said?.text && <p>{said.text}</p>}
        {said?.fault !== undefined && <Notice fault={said.fault} action="Close" onAction={() => setSaid(undefined)} />}
      </div>
      <main
        className="stage"
        onDragOver={(e) => {
          if (open && e.dataTransfer.types.includes("Files")) e.preventDefault();
        }}
        onDrop={(e) => {
          if (!open || !e.dataTransfer.files.length) return;
          e.preventDefault();
          setDropped([...e.dataTransfer.files]);
          setDrawer("files");
        }}
      >
        <div
          className={open ? "pixels" : "pixels dim"} ref={target} tabIndex={open ? 0 : -1} role="application"
          aria-label={`Screen of ${title}. Control, Alt and Shift together bring you back to the bar.`}
          onFocus={(e) => {
            if (e.target === e.currentTarget) visit.current?.screen?.focus();
          }}
        />
        {!open && (
          <div className="over">
            {(stage.name === "waiting" || stage.name === "opening") && (
              <Waiting estate={estate} desktop={desktop} title={title} stage={stage} onCancel={leave} />
            )}
            {stage.name === "dropped" && <Dropped next={stage.next} onLeave={leave} />}
            {stage.name === "ended" && <Ended because={stage.because} onAgain={again} onLeave={leave} />}
            {stage.name === "elsewhere" && <Elsewhere session={stage.session} desktop={pool ? `pool/${pool}` : name} onLeave={leave} />}
            {stage.name === "failed" && (
              <div className="panel">
                <h2>{title}</h2>
                <Notice fault={stage.fault} action="Try again" onAction={again} />
                <button type="button" className="plain" onClick={leave}>
                  Back to your desktops
                </button>
              </div>
            )}
          </div>
        )}
        {drawer && open && (
          <Drawer
            name={drawer} estate={estate} desktop={desktop} frame={frame} text={text} dropped={dropped} onTaken={() => setDropped([])} onStart={start} onClose={close}
            onPaste={(t) => visit.current?.screen?.paste(t)} onKey={(sym, code) => visit.current?.screen?.key(sym, code)}
          />
        )}
      </main>
      {resetting && desktop && (
        <Afresh
          estate={estate} desktop={desktop} title={title}
          onClose={() => setResetting(false)} onFault={(fault) => setSaid({ fault })}
          onDone={() => {
            setSaid({ text: `${title} starts afresh.` });
            if (pool && thrown) again(); // this seat is gone: another is asked for
          }}
        />
      )}
    </div>
  );
}

/** keep keeps a desktop's last picture, unless the desktop is one of which nothing stays. */
function keep(estate: Estate, project: string, name: string, visit: Visit | null): void {
  const d = estate.get("Desktop", project, name);
  if (d && !lastsASession(estate, d)) keepPicture(project, name, visit?.screen?.picture());
}

/** useKeys hears Control, Alt and Shift together before the guest does. */
function useKeys(page: React.RefObject<HTMLElement | null>, on: boolean, act: () => void): void {
  const latest = useRef(act);
  latest.current = act;
  useEffect(() => {
    const element = page.current;
    if (!on || !element) return;
    const hear = (e: KeyboardEvent) => {
      if (!(e.ctrlKey && e.altKey && e.shiftKey) || !["Control", "Alt", "Shift"].includes(e.key)) return;
      e.preventDefault();
      e.stopPropagation();
      latest.current();
    };
    element.addEventListener("keydown", hear, { capture: true });
    return () => element.removeEventListener("keydown", hear, { capture: true });
  }, [page, on]);
}

function useEscape(on: boolean, act: () => void): void {
  useEffect(() => {
    if (!on) return;
    const hear = (e: KeyboardEvent) => {
      if (e.key === "Escape" && !document.querySelector("dialog[open]")) act();
    };
    window.addEventListener("keydown", hear);
    return () => window.removeEventListener("keydown", hear);
  }, [on, act]);
}

/** In full screen the browser may also hand over keys such as Alt+Tab. */
async function toggleFull(page: HTMLElement): Promise<void> {
  const keyboard = (navigator as { keyboard?: { lock?: () => Promise<void>; unlock?: () => void } }).keyboard;
  try {
    if (document.fullscreenElement) {
      keyboard?.unlock?.();
      await document.exitFullscreen();
    } else {
      await page.requestFullscreen();
      await keyboard?.lock?.();
    }
  } catch {
    // The browser or the device does not allow it; the page stays as it is.
  }
}
