// Files between this device and a desktop's home folder, as far as its context lets them.
import { useEffect, useRef, useState } from "react";
import { at, Fault, faultOf, send } from "./call";
import { Notice } from "./notice";
import { bytesOf, type Frame } from "./telling";
import type { Desktop } from "./words";

const usualMost = 64 * 1024 * 1024;

/** Where files land that come from here. */
const landing = "Downloads";

interface Props {
  desktop: Desktop;
  frame: Frame | undefined;
  dropped: File[];
  onTaken: () => void;
}

export function FilesPanel({ desktop, frame, dropped, onTaken }: Props) {
  const [going, setGoing] = useState<{ name: string; share: number }>();
  const [said, setSaid] = useState<{ text?: string; fault?: unknown }>();
  const [path, setPath] = useState("");
  const chooser = useRef<HTMLInputElement>(null);
  // A context that is not ours to read is unknown; the gateway holds to it all the same.
  const may = frame?.files ?? { in: true, out: true };
  const most = bytesOf(frame?.files?.maxBytes, usualMost);
  const where = (file: string) => `${at(desktop.metadata.project, "desktops", desktop.metadata.name, "file")}?path=${encodeURIComponent(file)}`;

  const carry = async (name: string, act: (on: (share: number) => void) => Promise<string>) => {
    setSaid(undefined);
    setGoing({ name, share: 0 });
    try {
      setSaid({ text: await act((share) => setGoing({ name, share })) });
    } catch (fault) {
      setSaid({ fault });
      throw fault;
    } finally {
      setGoing(undefined);
    }
  };
  const sendAll = async (files: File[]) => {
    for (const f of files) {
      await carry(f.name, async (on) => {
        if (f.size > most) {
          throw new Fault("denied", `${f.name} has ${f.size.toLocaleString()} bytes; ${frame?.title} lets ${most.toLocaleString()} cross.`);
        }
        await sendFile(where(`${landing}/${f.name}`), f, on);
        return `${f.name} is in ${landing}.`;
      });
    }
  };
  const fetchOne = (file: string) => {
    const name = file.slice(file.lastIndexOf("/") + 1);
    return carry(name, async (on) => {
      keep(await fetchFile(where(file), on), name);
      return `${name} is on this device.`;
    });
  };

  const latest = useRef(sendAll);
  latest.current = sendAll;
  useEffect(() => {
    if (!dropped.length) return;
    onTaken();
    if (may.in) void latest.current(dropped).catch(() => undefined);
  }, [dropped, onTaken, may.in]);

  return (
    <>
      {may.in ? (
        <div className="field">
          <input
            ref={chooser} type="file" multiple hidden aria-label="Files to send"
            onChange={(e) => {
              const files = [...(e.target.files ?? [])];
              e.target.value = "";
              void sendAll(files).catch(() => undefined);
            }}
          />
          <button type="button" disabled={!!going} onClick={() => chooser.current?.click()}>
            Send files to the desktop…
          </button>
          <p className="hint">Or drop them on the desktop. They land in {landing}.</p>
        </div>
      ) : (
        <p className="hint">{frame?.title} lets no files into its desktops.</p>
      )}
      {may.out ? (
        <form
          onSubmit={(e) => {
            e.preventDefault();
            void fetchOne(path.trim()).catch(() => undefined);
          }}
        >
          <label>
            From the desktop
            <input type="text" value={path} onChange={(e) => setPath(e.target.value)} placeholder="Documents/report.odt" autoCapitalize="none" spellCheck={false} />
          </label>
          <button type="submit" disabled={!path.trim() || !!going}>
            Fetch from the desktop
          </button>
        </form>
      ) : (
        <p className="hint">{frame?.title} lets no files out of its desktops.</p>
      )}
      {going && (
        <label>
          {going.name}
          <progress value={going.share} max={1} />
        </label>
      )}
      {said?.fault !== undefined && <Notice fault={said.fault} action="Close" onAction={() => setSaid(undefined)} />}
      <p role="status" className="hint">
        {said?.text}
      </p>
    </>
  );
}

/** sendFile carries a file into the desktop. fetch() does not tell how far a body has gone. */
function sendFile(url: string, file: File, on: (share: number) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    const x = new XMLHttpRequest();
    x.open("POST", url);
    x.setRequestHeader("Content-Type", "application/octet-stream");
    x.upload.onprogress = (e) => e.lengthComputable && on(e.loaded / e.total);
    x.onerror = () => reject(new Fault("unreachable", ""));
    x.onload = () => {
      if (x.status < 400) return resolve();
      void faultOf(new Response(x.responseText, { status: x.status })).then(reject);
    };
    x.send(file);
  });
}

/** fetchFile carries a file out of the desktop. One that breaks off is an error. */
async function fetchFile(url: string, on: (share: number) => void): Promise<Blob> {
  const answer = await send("GET", url);
  const size = Number(answer.headers.get("Content-Length"));
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let came = 0;
  try {
    const reader = answer.body!.getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      parts.push(value);
      came += value.length;
      on(size ? came / size : 1);
    }
  } catch {
    throw new Fault("unavailable", "The file broke off on its way. Try again.");
  }
  if (came !== size) throw new Fault("unavailable", "The file broke off on its way. Try again.");
  return new Blob(parts, { type: "application/octet-stream" });
}

/** keep has the browser save what came. */
function keep(what: Blob, name: string): void {
  const url = URL.createObjectURL(what);
  const a = document.createElement("a");
  a.href = url;
  a.download = name;
  a.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
