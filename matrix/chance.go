package matrix

import (
	"math"
	"slices"
)

// apartByChance is how likely it is that of two sets of repeats of one and the
// same thing all of one lie above all of the other: 2 of the (n+m choose n)
// orders that they can come in (Mann-Whitney, two-sided). It is 1 for one repeat
// each, 1/126 for five.
func apartByChance(n, m int) float64 {
	orders := 1.0
	for i := 1; i <= n; i++ {
		orders *= float64(m+i) / float64(i)
	}
	return min(1, 2/orders)
}

// welch is how likely it is that two sets of repeats of one and the same thing
// lie as far from each other as these, two-sided: Welch's t-test of the
// logarithms, since what is measured here spreads by shares. Unlike ranks it can
// be as small as the difference is clear. It is 1 where it cannot say.
func welch(a, b []float64) float64 {
	ma, va, ok := logs(a)
	mb, vb, ok2 := logs(b)
	if !ok || !ok2 {
		return 1
	}
	// No spread at all is a clock too coarse to see it: a part in a thousand at least.
	va, vb = max(va, 1e-6)/float64(len(a)), max(vb, 1e-6)/float64(len(b))
	t := math.Abs(ma-mb) / math.Sqrt(va+vb)
	// Welch and Satterthwaite's degrees of freedom.
	freedom := (va + vb) * (va + vb) / (va*va/float64(len(a)-1) + vb*vb/float64(len(b)-1))
	return student(t, freedom)
}

// logs returns the mean and the variance of the logarithms.
func logs(s []float64) (mean, variance float64, ok bool) {
	if len(s) < 2 || slices.Min(s) <= 0 {
		return 0, 0, false
	}
	for _, v := range s {
		mean += math.Log(v) / float64(len(s))
	}
	for _, v := range s {
		d := math.Log(v) - mean
		variance += d * d / float64(len(s)-1)
	}
	return mean, variance, true
}

// student is the share of Student's distribution beyond t, on both sides: the
// regularized incomplete beta function of f/(f+t²), f/2 and 1/2 (Abramowitz and
// Stegun 26.7.1), by Simpson's rule over the angle whose tangent is t/sqrt(f).
func student(t, freedom float64) float64 {
	// The density over the angle is proportional to cos^(f-1).
	const steps = 300 // even
	area := func(from, to float64) float64 {
		h, sum := (to-from)/steps, 0.0
		for i := 0; i <= steps; i++ {
			weight := 4.0
			switch {
			case i == 0 || i == steps:
				weight = 1
			case i%2 == 0:
				weight = 2
			}
			sum += weight * math.Pow(max(0, math.Cos(from+float64(i)*h)), freedom-1)
		}
		return sum * h / 3
	}
	from := math.Atan(t / math.Sqrt(freedom))
	return area(from, math.Pi/2) / area(0, math.Pi/2)
}

// Sure is how likely a run of diff may be to call anything different that is
// not, however many figures it compares.
const Sure = 0.05

// judge takes back the verdicts that so many comparisons bring about by chance:
// Holm's procedure at Sure over all changes that were measured on both sides. What
// it takes back is Doubtful.
func judge(changes []Change) {
	var order []int
	for i, c := range changes {
		if c.Verdict != Missing && c.Verdict != TooFew {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(i, j int) int {
		switch a, b := changes[i].Chance, changes[j].Chance; {
		case a < b:
			return -1
		case a > b:
			return 1
		}
		return 0
	})
	clear := true
	for rank, i := range order {
		c := &changes[i]
		clear = clear && c.Chance*float64(len(order)-rank) <= Sure
		if !clear && c.Verdict != Same {
			c.Verdict = Doubtful
		}
	}
}
