// How likely differences are where there are none. The same sums as the Go
// package matrix does in chance.go, where their sources are named.

/** apartByChance is how likely all of n repeats lie above all of m of the same thing, or below (Mann-Whitney). */
export function apartByChance(n: number, m: number): number {
  let orders = 1;
  for (let i = 1; i <= n; i++) orders *= (m + i) / i;
  return Math.min(1, 2 / orders);
}

/** welch is how likely two sets of repeats of the same thing lie as far from each other as these; 1 where it cannot say. */
export function welch(a: number[], b: number[]): number {
  const la = logs(a);
  const lb = logs(b);
  if (!la || !lb) return 1;
  // No spread at all is a clock too coarse to see it: a part in a thousand at least.
  const va = Math.max(la.variance, 1e-6) / a.length;
  const vb = Math.max(lb.variance, 1e-6) / b.length;
  const t = Math.abs(la.mean - lb.mean) / Math.sqrt(va + vb);
  return student(t, (va + vb) ** 2 / (va ** 2 / (a.length - 1) + vb ** 2 / (b.length - 1)));
}

function logs(s: number[]): { mean: number; variance: number } | undefined {
  if (s.length < 2 || Math.min(...s) <= 0) return undefined;
  const l = s.map(Math.log);
  const mean = l.reduce((x, y) => x + y, 0) / l.length;
  return { mean, variance: l.reduce((x, y) => x + (y - mean) ** 2, 0) / (l.length - 1) };
}

const steps = 300; // of Simpson's rule; even

/** student is the share of Student's distribution beyond t, on both sides. */
function student(t: number, freedom: number): number {
  const area = (from: number, to: number) => {
    const h = (to - from) / steps;
    let sum = 0;
    for (let i = 0; i <= steps; i++) {
      const weight = i === 0 || i === steps ? 1 : i % 2 ? 4 : 2;
      sum += weight * Math.max(0, Math.cos(from + i * h)) ** (freedom - 1);
    }
    return (sum * h) / 3;
  };
  return area(Math.atan(t / Math.sqrt(freedom)), Math.PI / 2) / area(0, Math.PI / 2);
}

const sure = 0.05; // how likely any of the differences told may be none

/** undoubted says of each chance whether it is clear among all of them (Holm's procedure). */
export function undoubted(chances: number[]): boolean[] {
  const order = chances.map((_, i) => i).sort((i, j) => chances[i]! - chances[j]!);
  const out = chances.map(() => false);
  let clear = true;
  order.forEach((i, rank) => {
    clear &&= chances[i]! * (order.length - rank) <= sure;
    out[i] = clear;
  });
  return out;
}
