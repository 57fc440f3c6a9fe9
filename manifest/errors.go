package manifest

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Error is one thing wrong in a manifest.
type Error struct {
	File         string
	Line, Column int    // from 1
	Path         string // field, as spec.disks[1].size; empty for the document itself
	Text         string // what is wrong and what would be right
}

// Error returns "file:line:column: path: text".
func (e Error) Error() string {
	at := fmt.Sprintf("%s:%d:%d: ", e.File, e.Line, e.Column)
	if e.Path == "" {
		return at + e.Text
	}
	return at + e.Path + ": " + e.Text
}

// Errors is everything wrong in a set.
type Errors []Error

// Error returns one line for each, up to fifty.
func (es Errors) Error() string {
	var lines []string
	for i, e := range es {
		if i == 50 {
			lines = append(lines, fmt.Sprintf("and %d more", len(es)-i))
			break
		}
		lines = append(lines, e.Error())
	}
	return strings.Join(lines, "\n")
}

// ErrorsIn returns the single errors of a failed Load, if it is one of those.
func ErrorsIn(err error) (Errors, bool) {
	var es Errors
	ok := errors.As(err, &es)
	return es, ok
}

func (es Errors) sorted() Errors {
	out := slices.Clone(es)
	slices.SortFunc(out, func(a, b Error) int {
		return cmp.Or(strings.Compare(a.File, b.File), a.Line-b.Line, a.Column-b.Column,
			strings.Compare(a.Path, b.Path), strings.Compare(a.Text, b.Text))
	})
	return slices.Compact(out)
}

// place is a position in a file.
type place struct {
	file         string
	line, column int
}

func (p place) String() string { return fmt.Sprintf("%s:%d", p.file, p.line) }
