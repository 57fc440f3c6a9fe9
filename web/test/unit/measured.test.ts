import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { welch } from "../../src/chance";
import { cellOf, changesOf, compare, figureOf, judge, leadersOf, matrixOf, nameOf, runsOf, saidOf, type Better, type Cell, type Change } from "../../src/measured";
import type { Trial } from "../../src/words";

function trial(hypervisor: string, workload: string, figures: [name: string, better: Better, samples: number[]][], spec: Partial<Trial["spec"]> = {}): Trial {
  return {
    apiVersion: "consort.dev/v1", kind: "Trial", metadata: { name: `${hypervisor}-${workload}` },
    spec: { run: "r", hypervisor, workload, figures: figures.map(([name, better, samples]) => ({ name, better, samples })), ...spec },
  } as Trial;
}

const column = { name: "a", product: "", accelerator: "" };
const rtt = (hypervisor: string, samples: number[], spec = {}) => trial(hypervisor, "packets", [["rtt_us", "lower", samples]], spec);
const rowOf = (...t: Trial[]) => matrixOf(t).parts[0]!.rows[0]!;

test("verdicts are those of the Go package, alone and among many", () => {
  const pairs = JSON.parse(readFileSync("test/unit/verdicts.json", "utf8")) as { was: number[]; is: number[]; better: Better; alone: string; among: string; chance: number }[];
  expect(pairs.length).toBeGreaterThan(30);
  const none: Cell = { column, samples: [], median: 0, low: 0, high: 0 };
  const changes = pairs.map((p): [Cell, Change] => {
    const [was, is] = [cellOf(column, p.was), cellOf(column, p.is)];
    return [is ?? none, { verdict: compare(was, is, p.better), was: was ?? none, percent: 0, release: false }];
  });
  expect(changes.map(([, c]) => c.verdict)).toEqual(pairs.map((p) => p.alone));
  for (const p of pairs) expect(welch(p.was, p.is) / p.chance).toBeCloseTo(1, 6);
  judge(changes);
  expect(changes.map(([, c]) => c.verdict)).toEqual(pairs.map((p) => p.among));
});

test("a cell is the median with the least and the greatest repeat", () => {
  expect(cellOf(column, [3, 10, 2])).toMatchObject({ low: 2, median: 3, high: 10 });
  expect(cellOf(column, [4, 1])).toMatchObject({ median: 2.5 });
  expect(cellOf(column, [])).toBeUndefined();
});

describe("a row", () => {
  test("has a best only apart from all others", () => {
    const r = rowOf(rtt("b", [100, 110, 105, 104]), rtt("a", [40, 42, 41, 40]), rtt("c", [99, 160, 120, 119]));
    expect(leadersOf(r).map((c) => c.column.name)).toEqual(["a"]);
    expect(saidOf(r)).toBe("a is best: 2.6 times as good as b.");
  });
  test("says that there is no difference, between all or between some", () => {
    expect(saidOf(rowOf(rtt("a", [100, 110, 108, 107]), rtt("b", [105, 120, 106, 109])))).toMatch(/^No difference:/);
    expect(saidOf(rowOf(rtt("a", [100, 110, 108, 107]), rtt("b", [105, 120, 106, 109]), rtt("c", [900, 901, 902, 903])))).toBe("No difference between a and b; the rest is behind.");
  });
  test("of few repeats says so", () => expect(saidOf(rowOf(rtt("a", [100]), rtt("b", [200])))).toBe("Too few repeats to say."));
  test("of one has no best", () => expect(saidOf(rowOf(rtt("a", [1, 2])))).toBe("Only one was measured."));
});

test("a matrix has its workloads in the order of a run, and the notes of what was not measured", () => {
  const m = matrixOf([
    trial("a", "packets", [], { note: "it joins no network" }), trial("b", "packets", [["rtt_512_p50_us", "lower", [1]], ["rtt_64_p50_us", "lower", [1]]]),
    trial("a", "boot", [["boot_to_agent_s", "lower", [1]]]), trial("a", "zeal", [["z", "higher", [1]]], { guestType: "pv" }),
  ]);
  expect(m.columns.map((c) => c.name)).toEqual(["a", "a/pv", "b"]);
  expect(m.parts.map((p) => p.workload)).toEqual(["boot", "packets", "zeal"]);
  expect(m.parts[1]!.rows.map((r) => r.figure)).toEqual(["rtt_64_p50_us", "rtt_512_p50_us"]);
  expect(m.parts[1]!.notes).toEqual([{ column: "a", text: "it joins no network" }]);
});

test("a change is seen against the same figure of the run before, another release told", () => {
  const was = matrixOf([rtt("a", [40, 42, 41, 43, 40], { product: "A 1" })]);
  const is = matrixOf([rtt("a", [80, 82, 81, 83, 80], { product: "A 2" }), rtt("new", [1])]);
  const changes = changesOf(was, is);
  const cells = is.parts[0]!.rows[0]!.cells;
  expect(cells.map((c) => changes.get(c))).toMatchObject([{ verdict: "worse", percent: 98, release: true }, undefined]);
});

test("runs are the newest first", () => {
  const at = (run: string, at: string) => rtt("a", [1], { run, at });
  expect(runsOf([at("x", "2026-01-01T00:00:00Z"), at("y", "2026-01-03T00:00:00Z"), at("x", "2026-01-02T00:00:00Z")]).map((r) => [r.run, r.trials.length])).toEqual([["y", 1], ["x", 2]]);
});

test("figures are named for people, with their unit", () => {
  expect(nameOf("rtt_64_p50_us")).toEqual({ title: "Round trip, 64 bytes, half are faster", unit: "µs" });
  expect(nameOf("random_read_4k_iops")).toEqual({ title: "Random read 4 KiB", unit: "operations a second" });
  expect(nameOf("rate_512_per_s")).toEqual({ title: "Answers, 512 bytes", unit: "a second" });
  expect(nameOf("boot_to_agent_s")).toEqual({ title: "Boot to agent", unit: "s" });
  expect(nameOf("novel")).toEqual({ title: "Novel", unit: "" });
});

test("three figures count", () => {
  expect([0.01234, 1.2345, 22.11, 405.4, 41234].map(figureOf)).toEqual(["0.0123", "1.23", "22.1", "405", "41,200"]);
});
