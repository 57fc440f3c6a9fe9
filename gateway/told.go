package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"consort.dev/consort/audit"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/presentation"
	"consort.dev/consort/presentation/driver"
)

// told is a session in the audit log, from its beginning to its end.
type told struct {
	g     *Gateway
	act   audit.Act
	began time.Time
}

// tell writes down that the session opens. One that cannot be written down is
// not opened.
func (g *Gateway) tell(r *http.Request, b binding) (*told, error) {
	t := &told{g: g, began: g.Now(), act: audit.Act{
		Who: b.Person, What: "session.open", Outcome: audit.Begun, From: from(r),
		On:   estate.Ref{Kind: "Session", Project: b.Project, Name: b.Session}.String(),
		With: map[string]string{"desktop": b.Desktop, "protocol": b.Protocol},
	}}
	if g.Audit == nil {
		return t, nil
	}
	n, err := g.Audit.Record(r.Context(), t.act)
	t.act.Of = n
	return t, err
}

// end writes down how the session ended. What broke a connection is no failure
// to open it.
func (t *told) end(ctx context.Context, err *error) {
	t.act.What = "session.end"
	t.act.With = map[string]string{"desktop": t.act.With["desktop"], "seconds": strconv.Itoa(int(t.g.Now().Sub(t.began).Seconds()))}
	if *err != nil {
		t.act.With["because"] = fault.KindOf(*err).String()
	}
	var why ended
	if errors.As(context.Cause(ctx), &why) {
		t.act.With["because"] = "ended"
	}
	// It has ended, whether that can be written down or not; the log says when not.
	_ = audit.Tell(ctx, t.g.Audit, t.act, nil)
}

// unadmitted writes down that a ticket opened nothing. Anybody may send such
// requests, so not every one is told.
func (g *Gateway) unadmitted(r *http.Request, err error) error {
	if g.Audit != nil {
		_ = audit.Tell(r.Context(), &g.strangers, audit.Act{What: "session.open", From: from(r)}, err)
	}
	return err
}

// crossed writes down what passed between a desktop and its viewer, or was held
// back: how much, never what.
func (g *Gateway) crossed(v *visit, e presentation.Event) {
	what, err := "", error(nil)
	switch e.Name {
	case driver.ClipboardIn:
		what = "clipboard.in"
	case driver.ClipboardOut:
		what = "clipboard.out"
	case driver.PolicyRefused:
		what, err = "policy.hold", fault.Denied
	default:
		return
	}
	act := audit.Act{Who: v.session.Spec.Person, What: what, On: v.session.Ref().String(), With: map[string]string{"desktop": v.session.Spec.Desktop}}
	if err == nil {
		act.With["bytes"] = fmt.Sprint(e.Bytes)
	} else {
		act.With["held"] = e.Text // a sentence of ours
	}
	// It has crossed, whether that can be written down or not; the log says when not.
	_ = audit.Tell(context.Background(), g.Audit, act, err)
}

// from returns the address that a request came from.
func from(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}
