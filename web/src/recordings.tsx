// What sessions showed, for those who may look: a list, and a player.
import { useEffect, useRef, useState } from "react";
import { Link } from "wouter";
import { call, Fault } from "./call";
import { useEstate } from "./estate";
import type { Piece, Projector } from "./film";
import { Masthead, type MastheadProps } from "./masthead";
import { Notice, Offline } from "./notice";
import { duration } from "./telling";

interface Recording {
  id: string;
  desktop: string;
  session: string;
  person: string;
  context: string;
  began: string;
  ended?: string;
  bytes: number;
}

export function Recordings({ id, ...p }: MastheadProps & { id?: string }) {
  useEstate(p.estate);
  const [list, setList] = useState<Recording[]>();
  const [fault, setFault] = useState<unknown>();
  const [round, setRound] = useState(0);
  useEffect(() => {
    document.title = "Recordings · Consort";
  }, []);
  useEffect(() => {
    call<{ items: Recording[] }>("GET", "/v1/recordings").then(
      (r) => {
        setFault(undefined);
        setList(r.items);
      },
      (e: unknown) => setFault(e),
    );
  }, [round]);
  const one = list?.find((r) => r.id === id);
  return (
    <div className="home">
      <Masthead {...p} here="/recordings" />
      <Offline estate={p.estate} />
      <main>
        <h1>Recordings</h1>
        {fault !== undefined && <Notice fault={fault} action="Try again" onAction={() => setRound((n) => n + 1)} />}
        {list?.length === 0 && (
          <div className="empty">
            <h2>Nothing is recorded</h2>
            <p>A context whose rule for recording is “required” keeps what its sessions show, and one that allows it does so when asked.</p>
          </div>
        )}
        {one && <Player key={one.id} of={one} />}
        <ul className="films" aria-label="Recordings">
          {list?.map((r) => (
            <li key={r.id}>
              <Link href={`/recordings/${r.id}`} className="film" aria-current={r.id === id ? "true" : undefined}>
                <strong>{r.desktop}</strong> <span>{r.person}</span> <time dateTime={r.began}>{new Date(r.began).toLocaleString()}</time>{" "}
                <span className="quiet">{lasted(r)}</span>
              </Link>
            </li>
          ))}
        </ul>
      </main>
    </div>
  );
}

function lasted(r: Recording): string {
  if (!r.ended) return "goes on, or was cut short";
  return duration((Date.parse(r.ended) - Date.parse(r.began)) / 1000);
}

/** fetchPieces gets a recording. The plane gives none that is not as it was written. */
async function fetchPieces(id: string): Promise<Piece[]> {
  const { piecesOf } = await import("./film");
  const answer = await fetch(`/v1/recordings/${id}`);
  if (!answer.ok) {
    const problem = (await answer.json().catch(() => ({}))) as { kind?: string; detail?: string; title?: string };
    throw new Fault(problem.kind ?? "internal", problem.detail || problem.title || `the plane answered ${answer.status}`);
  }
  return piecesOf(await answer.text());
}

function Player({ of: r }: { of: Recording }) {
  const target = useRef<HTMLDivElement>(null);
  const projector = useRef<Projector>(undefined);
  const [length, setLength] = useState<number>();
  const [at, setAt] = useState(0);
  const [playing, setPlaying] = useState(false);
  const [speed, setSpeed] = useState(1);
  const [fault, setFault] = useState<unknown>();
  useEffect(() => {
    let gone = false;
    Promise.all([fetchPieces(r.id), import("./film")]).then(
      ([pieces, film]) => {
        if (gone) return;
        projector.current = new film.Projector(target.current!, pieces, (now, goes) => {
          setAt(now);
          setPlaying(goes);
        });
        setLength(film.lengthOf(pieces));
        projector.current.play();
        setPlaying(true);
      },
      (e: unknown) => !gone && setFault(e),
    );
    return () => {
      gone = true;
      projector.current?.close();
    };
  }, [r.id]);
  useEffect(() => {
    if (projector.current) projector.current.speed = speed;
  }, [speed, length]);
  if (fault !== undefined) return <Notice fault={fault} />;
  return (
    <section className="player" aria-label={`Recording of ${r.desktop}`}>
      <div className="pixels" ref={target} />
      <div className="controls">
        <button type="button" disabled={length === undefined} onClick={() => (playing ? projector.current?.pause() : projector.current?.play())}>
          {playing ? "Pause" : "Play"}
        </button>
        <input
          type="range" min={0} max={Math.max(1, length ?? 1)} value={Math.min(at, length ?? 0)} disabled={length === undefined} aria-label="Moment"
          aria-valuetext={duration(at / 1000)}
          onChange={(e) => void projector.current?.seek(Number(e.target.value))}
        />
        <span className="quiet">
          {duration(at / 1000)} of {duration((length ?? 0) / 1000)}
        </span>
        <label>
          Speed{" "}
          <select value={speed} onChange={(e) => setSpeed(Number(e.target.value))}>
            {[1, 2, 8, 32].map((n) => (
              <option key={n} value={n}>
                {n}×
              </option>
            ))}
          </select>
        </label>
      </div>
    </section>
  );
}
