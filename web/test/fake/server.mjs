// A plane that works, small and in memory: enough of the API to use the pages
// against, with the same security policy as the real one.
import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { readFileSync } from "node:fs";
import { extname, join } from "node:path";
import { randomBytes } from "node:crypto";
import { WebSocketServer } from "ws";
import { beginning, head } from "./estate.mjs";
import { journal } from "./racks.mjs";
import { serveScreen } from "./screen.mjs";

const web = join(import.meta.dirname, "../..");
const policy = [...readFileSync(join(web, "embed.go"), "utf8").split("const Policy")[1].split("//")[0].matchAll(/"([^"]*)"/g)].map((m) => m[1]).join("");
const types = { ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml" };
const plurals = { desktops: "Desktop", pools: "Pool", sessions: "Session", applications: "Application", machines: "Machine", operations: "Operation" };

// As plane/control/lifecycle has them: told one by one as they begin.
const phases = [
  ["compose", "Putting the layers together"],
  ["place", "Finding a place to run"],
  ["start", "Starting the machine"],
  ["boot", "Booting the system"],
  ["desktop", "Drawing the desktop"],
];

class Refusal extends Error {
  constructor(status, kind, detail, problems) {
    super(detail);
    Object.assign(this, { status, kind, problems });
  }
}

export class Fake {
  pace = 300; // milliseconds a phase of Connect takes
  holdAt = ""; // the phase that waits for goOn
  goOn = () => undefined;
  code = "open-sesame";
  admin = false;
  password = "correct horse battery";
  signedIn = new Set();
  objects = new Map();
  watchers = new Set();
  tickets = new Map();
  tunnels = new Set();
  seen = { keys: [], releases: [], texts: [], starts: [], posts: [], tickets: 0, asked: 0, pushed: 0, fences: [] };
  down = false;
  film = []; // what was sent to the last viewer
  filmed = 0;
  altered = false; // somebody changed it
  version = 1;

  constructor() {
    for (const o of beginning()) this.objects.set(this.key(o), o);
    this.server = createServer((q, a) => this.#answer(q, a));
    this.ws = new WebSocketServer({ noServer: true, handleProtocols: (names) => (names.has("consort.v1") ? "consort.v1" : false) });
    this.server.on("upgrade", (q, socket, rest) => this.#tunnel(q, socket, rest));
  }

  listen(port = 0) {
    return new Promise((done) => this.server.listen(port, "127.0.0.1", () => done(`http://localhost:${this.server.address().port}`)));
  }

  async close() {
    for (const t of this.tunnels) t.ws.terminate();
    this.server.closeAllConnections();
    await new Promise((done) => this.server.close(done));
  }

  key(o) {
    return `${o.kind}/${o.metadata.project ?? ""}/${o.metadata.name}`;
  }

  get(kind, name, project = "office") {
    return this.objects.get(`${kind}/${project}/${name}`);
  }

  /** put stores a changed object and tells the watchers. */
  put(o) {
    const kept = { ...o, metadata: { ...o.metadata, version: ++this.version } };
    this.objects.set(this.key(kept), kept);
    this.#tell({ type: "put", version: this.version, object: kept });
    return kept;
  }

  status(kind, name, status) {
    const o = this.get(kind, name);
    return this.put({ ...o, status: { ...o.status, ...status } });
  }

  remove(kind, name, project) {
    const o = this.get(kind, name, project);
    this.objects.delete(this.key(o));
    this.#tell({ type: "deleted", version: ++this.version, object: o });
  }

  /** cutOff breaks every watch and refuses new ones until told otherwise. */
  cutOff(down) {
    this.down = down;
    if (down) for (const w of this.watchers) w.destroy();
  }

  /** drop breaks every open screen. */
  drop() {
    for (const t of this.tunnels) t.ws.terminate();
  }

  cut(text) {
    for (const t of this.tunnels) t.screen.cut(text);
  }

  #tell(e) {
    for (const w of this.watchers) w.write(JSON.stringify(e) + "\n");
  }

  async #answer(q, a) {
    const url = new URL(q.url, "http://x");
    try {
      if (!url.pathname.startsWith("/v1/")) return await this.#page(url.pathname, a);
      if (this.down) return q.socket.destroy();
      if (url.pathname === "/v1/watch") return this.#watch(q, a, url);
      const body = await read(q);
      if (q.method !== "GET") this.seen.posts.push({ method: q.method, path: url.pathname, body, type: q.headers["content-type"] });
      if (url.pathname.startsWith("/v1/recordings/")) return this.#play(q, a, url.pathname.split("/").at(-1));
      const [value, headers] = this.#call(q, url.pathname, body);
      a.writeHead(200, { "Content-Type": "application/json", ...headers });
      a.end(JSON.stringify(value ?? {}));
    } catch (e) {
      const status = e.status ?? 500;
      a.writeHead(status, { "Content-Type": "application/problem+json" });
      a.end(JSON.stringify({ type: `/problems/${e.kind ?? "internal"}`, status, kind: e.kind ?? "internal", title: "", detail: e.message, problems: e.problems }));
    }
  }

  /** #play sends what was sent to a viewer, one piece a line. */
  #play(q, a, id) {
    this.#person(q);
    if (this.altered) throw new Refusal(409, "conflict", `recording ${id} is not as it was written: record 7: it was altered`);
    a.writeHead(200, { "Content-Type": "application/x-ndjson" });
    a.end(this.film.map((p) => JSON.stringify(p) + "\n").join(""));
  }

  async #page(path, a) {
    const name = path === "/" || !extname(path) ? "/index.html" : path;
    const content = await readFile(join(web, "dist", name)).catch(() => undefined);
    if (!content) return void a.writeHead(404).end();
    a.writeHead(200, { "Content-Type": types[extname(name)] ?? "text/plain", "Content-Security-Policy": policy });
    a.end(content);
  }

  #person(q) {
    const m = /(?:^|; )consort=([^;]+)/.exec(q.headers.cookie ?? "");
    if (!m || !this.signedIn.has(m[1])) throw new Refusal(401, "unauthenticated", "you are not signed in");
    return "ana";
  }

  #signIn() {
    const id = randomBytes(8).toString("hex");
    this.signedIn.add(id);
    return [{}, { "Set-Cookie": `consort=${id}; HttpOnly; SameSite=Strict; Path=/` }];
  }

  #call(q, path, body) {
    if (path === "/v1/sign-in/code") {
      if (body.code !== this.code) throw new Refusal(401, "unauthenticated", "this sign-in code has been used or is too old; ask for a new one with 'consort sign-in code'");
      this.code = "";
      return this.#signIn();
    }
    if (path === "/v1/sign-in/password") {
      if (body.password !== this.password) throw new Refusal(401, "unauthenticated", "the name or the password is wrong");
      return this.#signIn();
    }
    const person = this.#person(q);
    if (path === "/v1/me") return [{ person, title: "Ana Lovelace", admin: this.admin }];
    if (path === "/v1/recordings") {
      const began = new Date(this.filmed).toISOString();
      const one = { id: "0".repeat(32), project: "default", desktop: "desk", session: "desk-1", person, context: "work", protocol: "rfb", began, ended: new Date(this.filmed + 65_000).toISOString(), bytes: 1 };
      return [{ items: this.film.length ? [one] : [] }];
    }
    if (path === "/v1/sign-out") {
      this.signedIn.clear();
      return [{}, { "Set-Cookie": "consort=; Max-Age=0; Path=/" }];
    }
    if (path === "/v1/me/password") {
      this.password = body.password;
      return [{}];
    }
    if (path.startsWith("/v1/hypervisors/")) return [this.#rack(path, body)];
    return [this.#object(q.method, path, body)];
  }

  #rack(path, body) {
    const [, , , name, verb] = path.split("/").map(decodeURIComponent);
    const h = this.get("Hypervisor", name, "");
    if (!h) throw new Refusal(404, "not-found", `there is no Hypervisor ${name}`);
    if (verb === "adopt") return this.#adopt(h, body);
    if (verb === "undrain") {
      this.put({ ...h, spec: { ...h.spec, drain: false }, status: { ...h.status, state: "ready" } });
      return {};
    }
    const machines = [...this.objects.values()].filter((o) => o.kind === "Machine" && o.spec.hypervisor === name);
    if (!body.dryRun) this.put({ ...h, spec: { ...h.spec, drain: true }, status: { ...h.status, state: "draining" } });
    return { moves: machines.map((m) => this.#move(m, { ...body, to: "" }, true)) };
  }

  #adopt(h, { id, project, name, dryRun }) {
    const f = h.status.found?.find((f) => f.id === id);
    if (!f) throw new Refusal(404, "not-found", `${h.metadata.name} has found no machine ${id} that is not ours`);
    if (!/^[a-z]([a-z0-9-]*[a-z0-9])?$/.test(name)) throw new Refusal(422, "invalid", `Machine ${name}`, [{ path: "name", text: "a name has lower-case letters, digits and dashes" }]);
    const m = {
      ...head("Machine", name, project),
      spec: { hypervisor: h.metadata.name, power: f.power, adopted: true, hardware: { cpus: f.cpus, memory: f.memory, disks: f.disks } },
      status: { power: f.power },
    };
    if (dryRun) return m;
    this.put({ ...h, status: { ...h.status, found: h.status.found.filter((o) => o !== f) } });
    return this.put(m);
  }

  /** against are the reasons a machine cannot go to a hypervisor; tests set it. */
  against = () => [];

  #move(m, { to, live, force, dryRun }, draining = false) {
    const from = m.spec.hypervisor;
    const all = [...this.objects.values()].filter((o) => o.kind === "Hypervisor" && o.metadata.name !== from).map((o) => o.metadata.name);
    const staying = m.spec.adopted ? ["it was adopted: its disks are never touched"] : [];
    const obstacles = (name) => [...staying, ...this.against(m, name, { live, force })];
    const goal = to || all.find((n) => !obstacles(n).length);
    const why = goal ? obstacles(goal) : staying.length ? staying : all.flatMap((n) => obstacles(n).map((o) => `hypervisor ${n}: ${o}`));
    const reply = { machine: { kind: "Machine", project: m.metadata.project, name: m.metadata.name }, from, to: goal ?? "", obstacles: why };
    if (dryRun || (draining && why.length)) return reply;
    if (why.length) throw new Refusal(412, "conflict", `move ${m.metadata.name} to ${goal}: ${why.join("; ")}`);
    const operation = `move-${m.metadata.name}-${randomBytes(2).toString("hex")}`;
    this.put({ ...m, spec: { ...m.spec, moving: { from, to: goal, operation } } });
    this.put(journal(operation, m.metadata.name, from, goal, {}));
    return { ...reply, operation };
  }

  #object(method, path, body) {
    const [, , , project, plural, name, verb] = path.split("/").map(decodeURIComponent);
    const kind = plurals[plural];
    const o = this.get(kind, name, project);
    if (!o) throw new Refusal(404, "not-found", `${plural} ${name}: not there`);
    if (method === "PATCH") {
      const changed = this.put({ ...o, spec: { ...o.spec, ...body.spec } });
      if (kind === "Session" && body.spec?.end) {
        for (const t of this.tunnels) if (t.session === name) t.ws.close();
        return this.status("Session", name, { state: "ended", because: "you ended it" });
      }
      if (body.spec?.power === "off") return this.status("Desktop", name, { state: "off" });
      if (body.spec?.resets) this.seen.resets = body.spec.resets;
      return changed;
    }
    if (method === "POST" && verb === "move") return this.#move(kind === "Desktop" ? this.get("Machine", o.status.machine, project) : o, body);
    if (method === "POST" && verb === "abort") {
      this.put({ ...o, spec: { ...o.spec, abort: true } });
      return {};
    }
    if (method === "DELETE") {
      this.remove(kind, name, project);
      return {};
    }
    if (method === "POST" && verb === "connect") return kind === "Pool" ? this.#queue(o) : this.#connect(o);
    if (method === "POST" && verb === "ticket") return this.#ticket(o);
    if (method === "POST" && verb === "start") {
      if (this.refuseStart) throw new Refusal(424, "stuck", this.refuseStart);
      this.seen.starts.push(body.application);
      return {};
    }
    return o;
  }

  /** #queue returns the person's session of a pool, which waits until seat is called. */
  #queue(p) {
    const live = [...this.objects.values()].find((o) => o.kind === "Session" && o.spec.pool === p.metadata.name && o.status.state !== "ended");
    return live ?? this.put({ ...head("Session", `${p.metadata.name}-${randomBytes(3).toString("hex")}`), spec: { pool: p.metadata.name, person: "ana" }, status: { state: "waiting", waiting: "a free seat is being looked for" } });
  }

  /** seat gives a session of a pool a seat that is made for it. */
  seat(session) {
    const s = this.get("Session", session);
    const p = this.get("Pool", s.spec.pool);
    const name = `${s.spec.pool}-seat`;
    this.put({ ...head("Desktop", name), spec: { title: p.spec.title, blueprint: p.spec.blueprint, pool: s.spec.pool, person: "ana", power: "on" }, status: { state: "starting", machine: `${name}-m` } });
    this.put({ ...s, spec: { ...s.spec, desktop: name }, status: { state: "waiting", waiting: "the seat is being brought up" } });
    void this.#bringUp(name, session);
  }

  #connect(d) {
    const live = [...this.objects.values()].find((o) => o.kind === "Session" && o.spec.desktop === d.metadata.name && o.status.state !== "ended");
    if (live) return live;
    const s = this.put({ ...head("Session", `${d.metadata.name}-${randomBytes(3).toString("hex")}`), spec: { desktop: d.metadata.name, person: "ana" }, status: { state: "waiting" } });
    void this.#bringUp(d.metadata.name, s.metadata.name);
    return s;
  }

  async #bringUp(desktop, session) {
    const alive = () => this.get("Session", session)?.status.state === "waiting";
    const warm = this.get("Desktop", desktop).status.state === "running";
    const d = this.get("Desktop", desktop);
    this.put({ ...d, spec: { ...d.spec, power: "on" }, status: { ...d.status, state: warm ? "running" : "starting" } });
    let done = [];
    for (const [name, text] of warm ? [] : phases) {
      const began = new Date().toISOString();
      if (!alive()) return;
      this.status("Session", session, { waiting: text, phases: [...done, { name, text, began }] });
      await new Promise((r) => (name === this.holdAt ? (this.goOn = r) : setTimeout(r, this.pace)));
      done = [...done, { name, text, began, ended: new Date().toISOString() }];
    }
    if (!alive()) return;
    this.status("Desktop", desktop, { state: "running", presentation: "pictures" });
    this.status("Session", session, { state: "ready", waiting: "", phases: done, way: this.way ?? { name: "pictures", protocol: "rfb" } });
  }

  #ticket(s) {
    if (!["ready", "open"].includes(s.status.state)) throw new Refusal(412, "conflict", "the session is not ready");
    const ticket = randomBytes(32).toString("base64url");
    this.tickets.set(ticket, s.metadata.name);
    this.seen.tickets++;
    return { ticket, expires: new Date(Date.now() + 30_000).toISOString() };
  }

  #watch(q, a, url) {
    try {
      this.#person(q);
    } catch {
      a.writeHead(401, { "Content-Type": "application/problem+json" });
      return void a.end('{"kind":"unauthenticated","detail":"you are not signed in"}');
    }
    const kinds = url.searchParams.get("kinds").split(",");
    a.writeHead(200, { "Content-Type": "application/x-ndjson" });
    const from = Number(url.searchParams.get("version") ?? 0);
    for (const o of this.objects.values()) {
      if (kinds.includes(o.kind) && o.metadata.version > from) a.write(JSON.stringify({ type: "put", version: o.metadata.version, object: o }) + "\n");
    }
    a.write(JSON.stringify({ type: "bookmark", version: this.version }) + "\n");
    this.watchers.add(a);
    a.on("close", () => this.watchers.delete(a));
  }

  #tunnel(q, socket, rest) {
    const names = (q.headers["sec-websocket-protocol"] ?? "").split(",").map((s) => s.trim());
    const ticket = names.find((n) => n.startsWith("ticket."))?.slice(7);
    const session = this.tickets.get(ticket);
    this.tickets.delete(ticket);
    if (this.down || !session || q.url !== "/v1/tunnel" || !names.includes("consort.v1")) {
      return void socket.end("HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\n");
    }
    this.ws.handleUpgrade(q, socket, rest, (ws) => {
      this.filmed = Date.now();
      this.film = [];
      const send = ws.send.bind(ws);
      ws.send = (data) => {
        this.film.push({ at: Date.now() - this.filmed, shown: Buffer.from(data).toString("base64") });
        send(data);
      };
      const t = { ws, session, screen: serveScreen(ws, this.seen) };
      this.tunnels.add(t);
      this.status("Session", session, { state: "open" });
      ws.on("close", () => {
        this.tunnels.delete(t);
        if (this.get("Session", session)?.status.state === "open") this.status("Session", session, { state: "ready", because: "The viewer or the desktop closed the connection." });
      });
    });
  }
}

async function read(q) {
  let text = "";
  for await (const part of q) text += part;
  return text ? JSON.parse(text) : {};
}
