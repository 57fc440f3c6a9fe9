package estate_test

import (
	"strings"
	"testing"

	"consort.dev/consort/estate"
)

func TestPathsOfFilesGoDownFromHome(t *testing.T) {
	for _, right := range []string{
		"a", "report.odt", "Downloads/report.odt", "a b/c d", "-rf", "Übersicht/Größe.txt", "\U0001F600", "...", "..a", "$(reboot)",
		strings.Repeat("x", 255), ".hidden",
	} {
		if why := estate.FileProblem(right); why != "" {
			t.Errorf("%q: %s", right, why)
		}
	}
	for _, wrong := range []string{
		"", "/", "/etc/passwd", "..", "../x", "a/../../x", "a/..", ".", "./a", "a//b", "a/", "a\x00b", "a\nb", "a\x1b[2J", "\xff",
		strings.Repeat("x", 256), strings.Repeat("x/", 600) + "x", "\u0085",
	} {
		if estate.FileProblem(wrong) == "" {
			t.Errorf("%q passes", wrong)
		}
	}
}
