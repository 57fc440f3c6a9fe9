package estate_test

import (
	"testing"

	"consort.dev/consort/estate"
)

// TestACommandThatNoAgentStartsIsRefused: what agents refuse at each start is told
// when it is written.
func TestACommandThatNoAgentStartsIsRefused(t *testing.T) {
	a := &estate.Application{Spec: estate.ApplicationSpec{
		Title: "Web", Delivery: "stream", Command: []string{"/usr/bin/python3", "-c", "import web\nweb.serve()"},
		Versions: []estate.ApplicationVersion{{Name: "1", Packages: []string{"python3"}}},
	}}
	got := a.Check()
	if len(got) != 1 || got[0].Path != "spec.command[2]" {
		t.Errorf("problems %v, want one at spec.command[2]", got)
	}
	a.Spec.Command[2] = "import web; web.serve()"
	if got := a.Check(); len(got) > 0 {
		t.Errorf("a command of one line: %v", got)
	}
}
