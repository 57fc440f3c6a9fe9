package estate

import (
	"fmt"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"
)

// FilesBytes is what a file may hold that is carried where MaxBytes is 0.
const FilesBytes = 64 * MiB

// Lengths of what names a file, in bytes: a name is what Linux keeps at most
// (NAME_MAX), a path far below what it takes.
const (
	longestName = 255
	longestPath = 1024
)

// FileProblem says what is wrong with the path of a file within a person's home,
// or returns "". Paths go down from there and nowhere else.
func FileProblem(file string) string {
	switch {
	case file == "":
		return "a file has a name"
	case len(file) > longestPath:
		return fmt.Sprintf("a path of %d bytes is too long; at most %d", len(file), longestPath)
	case !utf8.ValidString(file), strings.ContainsFunc(file, unicode.IsControl):
		return fmt.Sprintf("%q has characters that no name of ours has", file)
	case path.IsAbs(file):
		return fmt.Sprintf("%q begins at the root; write where it is in the home folder, as Downloads/report.odt", file)
	}
	for part := range strings.SplitSeq(file, "/") {
		switch {
		case part == "", part == ".", part == "..":
			return fmt.Sprintf("%q leads elsewhere than down; write where it is in the home folder, as Downloads/report.odt", file)
		case len(part) > longestName:
			return fmt.Sprintf("a name of %d bytes is too long; at most %d", len(part), longestName)
		}
	}
	return ""
}
