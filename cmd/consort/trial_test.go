package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/store"
)

// paper plays the agent of a hypervisor whose machines are on as soon as they
// are wanted on. Those of a weak one vanish at their third start.
func (h *house) paper(t *testing.T, name string, weak bool) {
	t.Helper()
	v := &estate.Hypervisor{
		Head: estate.Head{APIVersion: estate.APIVersion, Kind: "Hypervisor", Metadata: estate.Metadata{Name: name}},
		Spec: estate.HypervisorSpec{Provider: "paper"},
	}
	v.Status.State, v.Status.Product = estate.HypervisorReady, "Paper 1.0"
	v.Status.Capabilities = []estate.CapabilityReport{
		{Name: estate.CanGuest, Has: true}, {Name: estate.CanSnapshot, Has: true}, {Name: estate.CanDisplay, Reason: "paper is dark"},
	}
	if err := h.store.Create(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	go h.keepPaper(ctx, name, weak)
	go func() {
		for c := range h.client.Calls(ctx, name, nil) {
			go h.answerPaper(ctx, c)
		}
	}()
}

func (h *house) keepPaper(ctx context.Context, name string, weak bool) {
	starts := 0
	for e := range api.Watch[estate.Machine](ctx, h.client, "default") {
		m := e.Object
		if e.Type != api.Is || m.Spec.Only != name {
			continue
		}
		if !m.Metadata.Deleting.IsZero() {
			_ = h.client.LetGo(ctx, m.Ref(), estate.AgentFinalizer)
			continue
		}
		if m.Spec.Hypervisor != "" && m.Status.Power == m.Spec.Power {
			continue
		}
		var on, last bool
		_, err := store.Modify(ctx, h.store, "default", m.Metadata.Name, func(now *estate.Machine) error {
			on = now.Spec.Hypervisor != "" && now.Spec.Power == estate.On && now.Status.Power != estate.On
			if last = on && weak && starts == 2; last {
				return nil
			}
			if now.Spec.Hypervisor != "" {
				now.Status.Power, now.Status.Guest.Agent = now.Spec.Power, true
			}
			now.Spec.Hypervisor = name
			return nil
		})
		switch {
		case last:
			_ = h.client.Delete(ctx, m.Ref(), api.Write{})
		case err == nil && on:
			starts++
		}
	}
}

// answerPaper measures 7 of everything; memory cannot be measured.
func (h *house) answerPaper(ctx context.Context, c api.Call) {
	conn, err := h.client.OpenCall(ctx, c.ID)
	if err != nil {
		return
	}
	defer conn.Close()
	in := json.NewDecoder(bufio.NewReader(conn))
	if c.Verb == api.CallTrial {
		var req api.TrialRequest
		_ = in.Decode(&req)
		_ = json.NewEncoder(conn).Encode(api.TrialReply{Figures: map[string]float64{"take_s": 7}})
		return
	}
	var req api.RunRequest
	_ = in.Decode(&req)
	reply := api.RunReply{Stdout: []byte(`{"sha256_mb_per_s": 7}`)}
	if slices.Contains(req.Args, "memory") {
		reply = api.RunReply{Exit: 1, Stderr: []byte("bench: it forgot")}
	}
	_ = json.NewEncoder(conn).Encode(reply)
}

// TestWhatWasMeasuredIsKept runs the matrix on two hypervisors, one of which
// fails half way: the other goes on, and every figure, and why there are no
// more, is in the file and in the store.
func TestWhatWasMeasuredIsKept(t *testing.T) {
	h, err := newHouse(t.Cleanup)
	if err != nil {
		t.Fatal(err)
	}
	img := &estate.Image{Head: estate.Head{APIVersion: estate.APIVersion, Kind: "Image", Metadata: estate.Metadata{Name: "guest", Project: "default"}}}
	img.Status.Digest = estate.Digest("sha256:" + strings.Repeat("a", 64))
	project := &estate.Project{Head: estate.Head{APIVersion: estate.APIVersion, Kind: "Project", Metadata: estate.Metadata{Name: "default"}}}
	for _, r := range []estate.Resource{project, img} {
		if err := h.store.Create(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	h.paper(t, "good", false)
	h.paper(t, "weak", true)
	program, out := filepath.Join(t.TempDir(), "bench"), filepath.Join(t.TempDir(), "matrix.json")
	if err := os.WriteFile(program, []byte("a program"), 0o600); err != nil {
		t.Fatal(err)
	}
	var shown, told bytes.Buffer
	root := newRoot(&cli{terminal: terminal{getenv: func(string) string { return "" }, out: &shown, err: &told}})
	root.SetArgs([]string{"--server", h.socket, "matrix", "run", "--image", "guest", "--program", program, "--repeats", "2", "--name", "first", "--out", out})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err = root.ExecuteContext(ctx)
	if fault.KindOf(err) != fault.Unavailable || !strings.Contains(err.Error(), "1 of 2 hypervisors failed; what was measured is kept: weak, 2 of 2: somebody deleted") {
		t.Errorf("the run says %v, want that weak failed in its second turn", err)
	}
	var file struct {
		Name, Commit, At, Machine string
		Metrics                   map[string]float64
		Samples                   map[string][]float64
		Notes                     []string
	}
	b, err := os.ReadFile(out)
	if err == nil {
		err = json.Unmarshal(b, &file)
	}
	if err != nil || file.Name != "matrix" || file.At == "" || file.Machine == "" {
		t.Fatalf("the file holds %s, %v", b, err)
	}
	for name, want := range map[string]int{"good_cpu_sha256_mb_per_s": 2, "weak_cpu_sha256_mb_per_s": 1, "good_snapshot_take_s": 2, "good_boot_boot_to_agent_s": 2} {
		if got := file.Samples[name]; len(got) != want || file.Metrics[name] == 0 {
			t.Errorf("%s has samples %v and the median %v, want %d samples", name, got, file.Metrics[name], want)
		}
	}
	for _, want := range []string{
		"good, display: no display: paper is dark", "good, packets: no network: not reported",
		"good, memory: failed in 1 of 2: " + guestProgram + " memory 1s ended with 1: bench: it forgot", "weak, cpu: tried no more since 2 of 2: somebody deleted",
	} {
		if !slices.ContainsFunc(file.Notes, func(n string) bool { return strings.HasPrefix(n, want) }) {
			t.Errorf("no note begins with %q: %q", want, file.Notes)
		}
	}
	for _, want := range []string{"good           1 of 2     cpu", "weak           prepare    first boot", "weak is tried no more"} {
		if !strings.Contains(told.String(), want) {
			t.Errorf("its progress does not say %q:\n%s", want, told.String())
		}
	}
	trials, _, err := api.List[estate.Trial](t.Context(), h.client, api.Filter{})
	if err != nil || len(trials) != 2*len(workloadsOf) {
		t.Errorf("%d trials are stored, %v; want one for each workload and hypervisor", len(trials), err)
	}
	if !strings.Contains(shown.String(), "sha256_mb_per_s") {
		t.Errorf("the table is missing:\n%s", shown.String())
	}
}
