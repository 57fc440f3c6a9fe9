package rpc

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/audit"
	"consort.dev/consort/estate"
)

// TestADestructionIsToldWithWhatWasBefore removes a sealed machine and reads of it.
func TestADestructionIsToldWithWhatWasBefore(t *testing.T) {
	l, _ := logged(t, -1)
	_, _, path := assembledWith(t, l)
	root, err := api.NewClient(api.Options{Server: path})
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	m := &estate.Machine{Head: head("Machine", "p", "m"), Spec: estate.MachineSpec{Power: estate.Off, Sealed: true, Hardware: estate.Hardware{
		CPUs: 1, Memory: estate.GiB, Disks: []estate.Disk{{Name: "root", Image: estate.Digest("sha256:" + strings.Repeat("0", 64))}},
	}}}
	if _, err := root.Apply(t.Context(), []estate.Resource{project("p"), m}, false); err != nil {
		t.Fatal(err)
	}
	lost := time.Now().UTC()
	_, err = api.ModifyStatus(t.Context(), root, "p", "m", func(m *estate.Machine) error {
		m.Status.Key, m.Status.Lost = "a-key", lost
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := root.Delete(t.Context(), m.Ref(), api.Write{}); err != nil {
		t.Fatal(err)
	}
	before, err := l.Seals(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := root.LetGo(t.Context(), m.Ref(), estate.AgentFinalizer); err != nil {
		t.Fatal(err)
	}
	seal := before[len(before)-1]
	var told []string
	err = l.Read(t.Context(), audit.Query{What: "machine.destroy"}, func(r audit.Record) error {
		told = append(told, fmt.Sprintf("%s %s %s %v %v", r.Outcome, r.On, r.With["key"], r.With["lost"] == lost.Format(time.RFC3339Nano),
			r.With["log"] == fmt.Sprintf("%d %s", seal.Last, seal.Hash)))
		return nil
	})
	want := "begun machine/p/m a-key true true; done machine/p/m a-key true true"
	if got := strings.Join(told, "; "); err != nil || got != want {
		t.Errorf("told: %s, %v; want %s", got, err, want)
	}
}
