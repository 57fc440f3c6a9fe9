// Package near finds the known name that somebody meant when they wrote another.
package near

import (
	"slices"
	"strings"
)

// Name returns the known name that was most likely meant, or "".
func Name(name string, known []string) string {
	best, least := "", max(1, len(name)/3)+1
	for _, k := range slices.Sorted(slices.Values(known)) {
		if strings.EqualFold(k, name) {
			return k
		}
		if d := distance(name, k, least); d < least {
			best, least = k, d
		}
	}
	if best != "" || len(name) < 4 {
		return best
	}
	for _, k := range known { // a part of a longer name, or one that says more
		if len(k) >= 4 && (strings.Contains(k, name) || strings.Contains(name, k)) && len(k) > len(best) {
			best = k
		}
	}
	return best
}

// distance counts the insertions, deletions, changes and swaps of neighbours
// that turn a into b (Damerau-Levenshtein, optimal string alignment). It may
// return any number not below limit once that is reached.
func distance(a, b string, limit int) int {
	x, y := []rune(strings.ToLower(a)), []rune(strings.ToLower(b))
	if len(x)-len(y) >= limit || len(y)-len(x) >= limit || len(x) > 256 || len(y) > 256 {
		return limit
	}
	older, old, row := make([]int, len(y)+1), make([]int, len(y)+1), make([]int, len(y)+1)
	for j := range old {
		old[j] = j
	}
	for i := 1; i <= len(x); i++ {
		row[0] = i
		for j := 1; j <= len(y); j++ {
			cost := 1
			if x[i-1] == y[j-1] {
				cost = 0
			}
			row[j] = min(old[j]+1, row[j-1]+1, old[j-1]+cost)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				row[j] = min(row[j], older[j-2]+1)
			}
		}
		older, old, row = old, row, older
	}
	return old[len(y)]
}

// DidYouMean ends a sentence about a name nobody knows: with the nearest one, or
// with some of those there are after the words what.
func DidYouMean(name string, known []string, what string) string {
	if k := Name(name, known); k != "" {
		return "; did you mean " + k + "?"
	}
	if len(known) == 0 {
		return ""
	}
	all := slices.Sorted(slices.Values(known))
	more := ""
	if len(all) > 12 {
		all, more = all[:12], ", ..."
	}
	return "; " + what + ": " + strings.Join(all, ", ") + more
}
