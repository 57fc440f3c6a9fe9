package rpc

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/audit"
	"consort.dev/consort/audit/chain"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/auth"
)

// Audit keeps who did what, and shows it.
type Audit interface {
	audit.Recorder
	// Read gives the records that match to visit, in order.
	Read(ctx context.Context, q audit.Query, visit func(audit.Record) error) error
	// Follow is Read that goes on until ctx or visit ends it.
	Follow(ctx context.Context, q audit.Query, visit func(audit.Record) error) error
	// Verify checks that the log is as it was written.
	Verify(ctx context.Context) (chain.Report, error)
	// Seals returns how far the log had come, for somebody else to keep.
	Seals(ctx context.Context) ([]chain.Seal, error)
}

// acts says as what a route's requests are written down, before they are
// served. The other routes are in untold, or of a kind: what they change is
// written down where it is committed, object by object.
var acts = map[string]string{
	"connect":          "connect",
	"connectPool":      "connect",
	"sendFile":         "file.in",
	"fetchFile":        "file.out",
	"ticket":           "ticket.make",
	"startApplication": "application.start",
	"run":              "guest.run",
	"trial":            "trial.run",
	"moveDesktop":      "move",
	"moveMachine":      "move",
	"abort":            "move.abort",
	"approve":          "decision.approve",
	"undo":             "decision.undo",
	"undoRollout":      "rollout.undo",
	"drain":            "hypervisor.drain",
	"undrain":          "hypervisor.undrain",
	"adopt":            "machine.adopt",
	"joinToken":        "agent.token",
	"revoke":           "agent.revoke",
	"renew":            "agent.renew",
	"audit":            "audit.read",
	"verifyAudit":      "audit.verify",
	"auditSeals":       "audit.seals",
	"playRecording":    "recording.play",
	"verifyRecording":  "recording.verify",
}

// untold says why requests of a route are not written down as such.
var untold = map[string]string{
	"watch":          "it reads",
	"offers":         "it reads",
	"query":          "it reads",
	"queryRange":     "it reads",
	"postQuery":      "it reads",
	"postQueryRange": "it reads",
	"me":             "it reads",
	"recordings":     "it reads what there is, and none of it",
	"apply":          "what it changes is",
	"enrol":          "whoever asks is nobody yet; a host that joined is",
	"join":           "an agent's sign of life",
	"alive":          "an agent's sign of life",
	"claim":          "agents share work",
	"fetch":          "agents share content",
	"calls":          "an agent listens",
	"answerCall":     "part of what somebody else began",
	"refuseCall":     "part of what somebody else began",
}

// act returns as what the request is written down before it is served, or "".
func (c *call) act() string {
	if what := acts[c.route.id]; what != "" {
		return what
	}
	// Loops and agents report; a person who does sets a status by hand.
	byHand := strings.HasSuffix(c.route.path, "/status") || strings.HasSuffix(c.route.path, "/let-go")
	if c.caller.Person != "" && byHand {
		return kindly(c.route.kind.Kind, "status")
	}
	return ""
}

// kindly names what is done to an object of the kind.
func kindly(k estate.Kind, verb string) string { return strings.ToLower(string(k)) + "." + verb }

// doing is an act of the caller.
func (c *call) doing(what string, on string) audit.Act {
	return audit.Act{Who: c.caller.Name(), What: what, On: on, From: auth.From(c.r)}
}

// told serves the request, and writes it down if it is one of acts. What was
// refused is written down of every request that would have changed something.
func (c *call) told() error {
	on := ""
	if ref := c.ref(); ref.Name != "" {
		on = ref.String()
	}
	if what := c.act(); what != "" {
		act := c.doing(what, on)
		if path := c.r.URL.Query().Get("path"); path != "" { // of a file
			act.With = map[string]string{"path": path}
		}
		return audit.Do(c.r.Context(), c.Audit, act, func(with map[string]string) error {
			c.with = with
			return c.route.serve(c)
		})
	}
	err := c.route.serve(c)
	if c.r.Method != http.MethodGet && fault.KindOf(err) == fault.Denied {
		// The answer is the same whether it can be written down or not.
		_ = audit.Tell(c.r.Context(), c.Audit, c.doing(c.route.id, on), err)
	}
	return err
}

// changing commits changes to objects: it writes down which fields of which,
// never what is in them, and then does it.
func (s *set) changing(commit func() error) error {
	act, err := s.change()
	if err != nil {
		return err
	}
	if len(act.With) == 0 {
		return commit()
	}
	return audit.Do(s.c.r.Context(), s.c.Audit, act, func(map[string]string) error { return commit() })
}

// change is the act of the set: of its one object, or of all it changes.
func (s *set) change() (audit.Act, error) {
	result, err := s.result()
	if err != nil {
		return audit.Act{}, err
	}
	act := s.c.doing("apply", "")
	act.With = map[string]string{}
	for _, r := range result.Results {
		if r.Change == api.Unchanged || r.Ref.Kind == "Event" { // which tells of acts, and is none
			continue
		}
		verb, fields := "create", "created"
		if r.Change == api.Changed {
			verb, fields = "change", paths(r.Diff)
		}
		act.With[r.Ref.String()] = fields
		act.What, act.On = kindly(r.Ref.Kind, verb), r.Ref.String()
	}
	if len(act.With) > 1 {
		act.What, act.On = "apply", ""
	}
	return act, nil
}

// paths names the fields that differ.
func paths(diff []api.Difference) string {
	var all []string
	for _, d := range diff {
		all = append(all, d.Path)
	}
	return strings.Join(all, " ")
}

// joined writes down that a host joined, before it gets its certificate, or
// that it may not. Anybody may try, so not every refusal is told.
func (c *call) joined(made *api.Certificate, token string, err error) error {
	act := c.doing("agent.join", "")
	if err != nil {
		if c.Audit != nil {
			_ = audit.Tell(c.r.Context(), &c.strangers, act, err)
		}
		return err
	}
	t, err := api.ParseJoinToken(token)
	if err != nil {
		return err
	}
	act.On = estate.Ref{Kind: "Hypervisor", Name: t.Hypervisor}.String()
	act.With = map[string]string{"until": made.Expires.UTC().Format(time.RFC3339)}
	return audit.Tell(c.r.Context(), c.Audit, act, nil)
}

// destroyed has its agent let go of an object. Of a sealed machine that is the
// record that its key is destroyed: which key, when, and how far the log had come.
func (c *call) destroyed(r estate.Resource, letGo func() error) error {
	m, is := r.(*estate.Machine)
	if !is || m.Status.Key == "" || c.Audit == nil {
		return letGo()
	}
	act := c.doing("machine.destroy", m.Ref().String())
	act.With = map[string]string{"key": m.Status.Key, "lost": m.Status.Lost.UTC().Format(time.RFC3339Nano)}
	if o := m.Metadata.Owner; o != nil {
		act.With["of"] = o.String()
	}
	seals, err := c.Audit.Seals(c.r.Context())
	if err != nil {
		return err
	}
	if len(seals) > 0 {
		last := slices.MaxFunc(seals, func(a, b chain.Seal) int { return cmp.Compare(a.Last, b.Last) })
		act.With["log"] = fmt.Sprintf("%d %s", last.Last, last.Hash)
	}
	return audit.Do(c.r.Context(), c.Audit, act, func(map[string]string) error { return letGo() })
}
