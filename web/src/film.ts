// A recorded session, shown again: what was sent to its viewer is sent to a
// viewer of our own, at the same pace, and what that one answers is dropped.
import RFB from "@novnc/novnc";

export interface Piece {
  at: number; // milliseconds since the beginning
  shown?: string; // bytes for the viewer, base64
  event?: string;
}

/** piecesOf reads a recording as the plane sends it: one piece a line. */
export function piecesOf(lines: string): Piece[] {
  const all: Piece[] = [];
  for (const line of lines.split("\n")) {
    if (!line) continue;
    const p = JSON.parse(line) as Piece & { error?: { title?: string; detail?: string } };
    if (p.error) throw new Error(p.error.detail || p.error.title || "the recording cannot be read");
    all.push(p);
  }
  return all;
}

export function lengthOf(pieces: Piece[]): number {
  return pieces.at(-1)?.at ?? 0;
}

function bytesIn(base64: string): ArrayBuffer {
  return Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)).buffer;
}

/** Line is the viewer's end of a connection that only ever speaks. */
class Line {
  binaryType = "arraybuffer";
  protocol = "";
  readyState = WebSocket.OPEN as number;
  onopen: (() => void) | null = null;
  onmessage: ((e: { data: ArrayBuffer }) => void) | null = null;
  onerror: ((e: unknown) => void) | null = null;
  onclose: ((e: unknown) => void) | null = null;
  send = () => undefined;
  close = () => {
    this.readyState = WebSocket.CLOSED;
    setTimeout(() => this.onclose?.({ code: 1000, reason: "" }), 0);
  };
}

const breath = 1 << 20; // bytes after which the page may draw, while we hurry

/** Projector shows a film in an element. */
export class Projector {
  readonly #target: HTMLElement;
  readonly #pieces: Piece[];
  readonly #told: (at: number, playing: boolean) => void;
  #line: Line | undefined;
  #rfb: RFB | undefined;
  #next = 0; // piece to show
  #at = 0; // where we are, in milliseconds
  #timer: ReturnType<typeof setTimeout> | undefined;
  #turn = 0; // whatever was begun before the last seek is over
  speed = 1;

  constructor(target: HTMLElement, pieces: Piece[], told: (at: number, playing: boolean) => void) {
    this.#target = target;
    this.#pieces = pieces;
    this.#told = told;
  }

  get playing(): boolean {
    return this.#timer !== undefined;
  }

  play(): void {
    if (this.playing) return;
    if (this.#next >= this.#pieces.length) this.#rewind();
    const tick = 50;
    const step = () => {
      this.#at += tick * this.speed;
      this.#show(this.#at);
      const more = this.#next < this.#pieces.length;
      this.#timer = more ? setTimeout(step, tick) : undefined;
      this.#told(Math.min(this.#at, lengthOf(this.#pieces)), more);
    };
    this.#timer = setTimeout(step, 0);
  }

  pause(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#told(this.#at, false);
  }

  /** seek goes to a moment. What lies before it must be shown too: a picture is made of all that changed. */
  async seek(at: number): Promise<void> {
    const went = this.playing;
    this.pause();
    if (at < this.#at) this.#rewind();
    const turn = ++this.#turn;
    for (let left = this.#due(at); left > 0; left = this.#due(at)) {
      this.#show(at, breath);
      await new Promise((resolve) => setTimeout(resolve, 0));
      if (turn !== this.#turn) return;
    }
    this.#at = at;
    this.#told(at, false);
    if (went) this.play();
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#turn++;
    this.#rfb?.disconnect();
    this.#rfb = undefined;
    this.#target.replaceChildren();
  }

  #due(at: number): number {
    let n = 0;
    for (let i = this.#next; i < this.#pieces.length && this.#pieces[i]!.at <= at; i++) n++;
    return n;
  }

  #rewind(): void {
    this.close();
    this.#next = 0;
    this.#at = 0;
  }

  /** show sends what is due, at most so many bytes. */
  #show(at: number, most = Infinity): void {
    if (!this.#rfb) {
      this.#line = new Line();
      this.#rfb = new RFB(this.#target, this.#line);
      this.#rfb.viewOnly = true;
      this.#rfb.scaleViewport = true;
      this.#rfb.background = "transparent";
    }
    for (let sent = 0; this.#next < this.#pieces.length && sent < most; this.#next++) {
      const p = this.#pieces[this.#next]!;
      if (p.at > at) return;
      if (!p.shown) continue;
      const data = bytesIn(p.shown);
      sent += data.byteLength;
      this.#line!.onmessage?.({ data });
    }
  }
}
