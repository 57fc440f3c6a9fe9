// What an administrator of the fake plane has: hypervisors, machines, moves and
// two runs of the matrix.
import { head } from "./estate.mjs";

const MiB = 1024 ** 2;
const GiB = 1024 * MiB;

const can = (name, value) => ({ name, has: true, evidence: "verified", ...(value ? { value } : {}) });

const rack = (name, product, state, capabilities, found = []) => ({
  ...head("Hypervisor", name, ""),
  spec: { provider: "iron", ...(state === "draining" ? { drain: true } : {}) },
  status: {
    state, product, accelerator: "tcg", guestTypes: ["full"], free: { memory: "12Gi", disk: "80Gi" }, capabilities,
    ...(found.length ? { found } : {}),
  },
});

const machine = (name, hypervisor, more = {}) => ({
  ...head("Machine", name),
  spec: { hypervisor, epoch: 3, power: "on", hardware: { cpus: 2, memory: "2Gi", disks: [{ name: "system" }] } },
  status: { power: "on", epoch: 3, hypervisor },
  ...more,
});

const owned = (m, desktop) => ({ ...m, metadata: { ...m.metadata, owner: { kind: "Desktop", project: "office", name: desktop } } });

/** ago is a time so many seconds before now. */
export const ago = (seconds) => new Date(Date.now() - 1000 * seconds).toISOString();

const step = (name, began, ended) => ({ name, effect: "epoch 3", began: ago(began), ...(ended === undefined ? {} : { ended: ago(ended) }) });

/** journal is the journal of a move. */
export function journal(name, on, from, to, status, spec = {}) {
  const o = head("Operation", name);
  return {
    ...o,
    metadata: { ...o.metadata, created: status.steps?.[0]?.began ?? ago(1) },
    spec: { verb: "move", on: { kind: "Machine", project: "office", name: on }, by: "ana", move: { from, to, power: "on" }, ...spec },
    status: { state: "running", ...status },
  };
}

export function racks() {
  const found = [
    { id: "11111111-1111-4111-8111-111111111111", name: "Payroll 2019", power: "on", cpus: 4, memory: "8Gi", disks: [{ name: "sda", size: "40Gi" }] },
    { id: "22222222-2222-4222-8222-222222222222", name: "passthrough", power: "off", obstacle: "it has a device of the host's" },
  ];
  const drift = { conditions: [{ type: "Drifted", status: "True", text: "it has 4 CPUs where 2 are wanted: change it back on its hypervisor, or change what is wanted" }] };
  const ledger = machine("ledger", "rack-2");
  return [
    { ...head("Project", "office", ""), spec: {}, status: {} },
    rack("rack-1", "Iron 9.1", "ready", [can("disk-transfer"), can("display", "rfb"), can("survey"), can("snapshot")], found),
    rack("rack-2", "Iron 10.0", "ready", [can("disk-transfer"), can("live-move", "iron"), can("guest-commands")]),
    rack("rack-3", "Copper 4", "ready", [can("disk-transfer"), { name: "display", has: false, reason: "its guests have no screen", evidence: "declared" }]),
    owned(machine("desk-m", "rack-1"), "desk"),
    { ...ledger, status: { ...ledger.status, ...drift } },
    { ...machine("mail", "rack-2"), spec: { ...ledger.spec, adopted: true } },
  ];
}

/** onTheWay is a move that copies its second disk, and two that ended. */
export function onTheWay() {
  const disks = [
    { name: "system", size: String(8 * GiB), carried: String(1638 * MiB), began: ago(40), ended: ago(12), digest: "sha256:" + "4fd1c7a29be0".padEnd(64, "0") },
    { name: "home", size: String(4 * GiB), carried: String(1280 * MiB), began: ago(12) },
  ];
  const steps = [step("stop", 52, 45), step("prepare", 45, 42), step("copy", 42)];
  const all = ["stop", "prepare", "copy", "place", "shelve", "boot", "verify"];
  const done = all.map((name, i) => step(name, 4000 - 20 * i, 3980 - 20 * i));
  const failed = [...all.slice(0, 5).map((name, i) => step(name, 9000 - 20 * i, 8985 - 20 * i)), step("boot", 8900), step("return", 8005, 8000)];
  const carried = [{ ...disks[0], began: ago(3950), ended: ago(3910) }];
  return [
    { ...machine("books-m", "rack-1"), metadata: { ...owned(machine("books-m", "rack-1"), "books").metadata }, spec: { ...machine("books-m", "rack-1").spec, moving: { from: "rack-1", to: "rack-2", operation: "move-books-m-5e21" } } },
    journal("move-books-m-5e21", "books-m", "rack-1", "rack-2", { steps, disks }, { why: "rack-1 gets new memory" }),
    journal("move-ledger-77aa", "ledger", "rack-3", "rack-2", {
      state: "done", steps: done, disks: carried, ended: ago(3840),
      note: "it stayed on for 30s; not verified by a command, because its system has no guest agent that is known",
    }),
    journal("move-desk-m-0b9c", "desk-m", "rack-1", "rack-3", {
      state: "failed", error: "boot took longer than 15m0s: waiting until it runs on rack-3", steps: failed, ended: ago(8000),
    }),
  ];
}

// Figures of three hypervisors: what each is by, and how far repeats lie apart.
const measured = [
  ["boot", "boot_to_agent_s", "lower", [22.1, 35.4, 3.2]],
  ["cpu", "sha256_mb_per_s", "higher", [412, 405, 1490]],
  ["memory", "copy_mb_per_s", "higher", [2900, 3010, 3600]],
  ["switches", "switches_per_s", "higher", [41200, 39800, 118000]],
  ["disk", "random_read_4k_iops", "higher", [5210, 8900, 9100]],
  ["disk", "random_write_4k_sync_iops", "higher", [640, 410, 2200]],
  ["disk", "sequential_write_mb_per_s", "higher", [96, 101, 140]],
  ["packets", "rtt_64_p50_us", "lower", [310, 290, 0]],
  ["packets", "rtt_64_p99_us", "lower", [910, 890, 0]],
  ["packets", "rtt_1500_p50_us", "lower", [420, 630, 0]],
  ["packets", "rate_64_per_s", "higher", [9800, 10100, 0]],
];

const repeats = [0.97, 1.02, 1, 0.99, 1.04];

/** trials are two runs; in the second, rack-2 has a new release that boots slower. */
export function trials() {
  const out = [];
  for (const [run, seconds, product, slower] of [["20261122-210000", 90_000, "Iron 9.1", 1], ["20261123-090000", 3600, "Iron 10.0", 1.5]]) {
    const names = ["rack-1", "rack-2", "rack-3"];
    for (const workload of new Set(measured.map((m) => m[0]))) {
      names.forEach((hypervisor, i) => {
        const mine = measured.filter((m) => m[0] === workload && m[3][i] > 0);
        const figures = mine.map(([, name, better, by]) => {
          const factor = hypervisor === "rack-2" && name === "boot_to_agent_s" ? slower : 1;
          return { name, better, samples: repeats.map((r) => by[i] * r * factor) };
        });
        const name = `${run}-${hypervisor}-${workload}`;
        out.push({
          ...head("Trial", name, ""),
          spec: {
            run, hypervisor, workload, figures, at: ago(seconds), accelerator: i === 2 ? "none" : "tcg",
            product: ["Iron 9.1", product, "Copper 4"][i], ...(figures.length ? {} : { note: "its machines join no network" }),
          },
          status: {},
        });
      });
    }
  }
  return out;
}
