package rpc

import (
	"slices"
	"strings"
)

// nearest returns the known name that was most likely meant, or "".
func nearest(name string, known []string) string {
	best, least := "", max(1, len(name)/3)+1
	for _, k := range slices.Sorted(slices.Values(known)) {
		if strings.EqualFold(k, name) {
			return k
		}
		if d := distance(name, k); d < least {
			best, least = k, d
		}
	}
	return best
}

// didYouMean ends a sentence about a name that nobody knows.
func didYouMean(name string, known []string) string {
	if k := nearest(name, known); k != "" {
		return "; did you mean " + k + "?"
	}
	if len(known) == 0 || len(known) > 12 {
		return ""
	}
	return "; there are " + strings.Join(slices.Sorted(slices.Values(known)), ", ")
}

// distance counts the insertions, deletions and changes that turn a into b
// (Levenshtein). Names have at most 63 bytes; longer ones are not compared.
func distance(a, b string) int {
	if len(a) > 63 || len(b) > 63 {
		return 64
	}
	old, row := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range old {
		old[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(old[j]+1, row[j-1]+1, old[j-1]+cost)
		}
		old, row = row, old
	}
	return old[len(b)]
}
