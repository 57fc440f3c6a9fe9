// The estate that the fake plane begins with.

const head = (kind, name, project = "office") => ({
  apiVersion: "consort.dev/v1",
  kind,
  metadata: { name, ...(project ? { project } : {}), uid: `${kind}-${name}`.toLowerCase(), version: 1 },
});

const application = (name, title, icon) => ({ ...head("Application", name), spec: { title, icon, delivery: "layers", command: [name] }, status: {} });

const context = (name, title, colour, trust, clipboard) => ({ ...head("Context", name), spec: { title, colour, trust, clipboard }, status: {} });

const blueprint = (name, title, context, applications) => ({
  ...head("Blueprint", name),
  spec: { title, image: "debian-12-desktop", presentation: "pictures", context, applications: applications.map((n) => ({ name: n })) },
  status: {},
});

const plan = (context, applications) => ({
  image: "sha256:" + "0".repeat(64),
  presentation: { name: "pictures", protocol: "rfb" },
  layers: applications.map((a) => ({ application: a, version: "1", digest: "sha256:" + "1".repeat(64), delivery: "layers" })),
  context,
});

const desktop = (name, title, blueprint, status, person = "ana") => ({
  ...head("Desktop", name),
  spec: { title, blueprint, person, power: status.state === "running" ? "on" : "off" },
  status,
});

export function beginning() {
  return [
    context("work", "Work", "#2e6f8e", 2, { in: true, out: true, maxBytes: "64Ki" }),
    context("vault", "Vault", "#8c2f39", 3, {}),
    context("personal", "Personal", "#3f7d4e", 1, { in: true, out: true }),
    application("writer", "Writer", "W"),
    application("browser", "Firefox", "F"),
    application("sheets", "Sheets", "Σ"),
    application("ledger", "Ledger", "L"),
    blueprint("clerk", "Clerk's desk", "work", ["writer", "browser", "sheets"]),
    blueprint("books", "Books", "vault", ["ledger"]),
    blueprint("play", "Play", "personal", ["browser"]),
    { ...head("Image", "debian-12-desktop"), spec: { title: "Debian 12" }, status: {} },
    desktop("desk", "Ana's desk", "clerk", { state: "off", machine: "desk-m", plan: plan("work", ["writer", "browser", "sheets"]) }),
    desktop("books", "The books", "books", { state: "running", machine: "books-m", plan: plan("vault", ["ledger"]), presentation: "pictures" }),
    desktop("play", "", "play", { state: "off", plan: plan("personal", ["browser"]) }),
  ];
}

/** pool has free seats of the clerk's desk. */
export const pool = (name, title, status) => ({ ...head("Pool", name), spec: { title, blueprint: "clerk", warm: status.warm, maximum: 50 }, status });

export { head };
