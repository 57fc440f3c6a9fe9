package gateway

import (
	"context"
	"io"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/presentation"
	"consort.dev/consort/recording"
)

// tape begins the recording of a session that is to be recorded; nil where it is
// not. What must be recorded and cannot is not shown, nor shown any longer.
func (g *Gateway) tape(ctx context.Context, v *visit, o *opened) (*recording.Tape, error) {
	s := v.session
	must := v.record == estate.RecordRequired
	if !must && !(v.record == estate.RecordAllowed && s.Spec.Record) {
		return nil, nil
	}
	if !v.provider.Offer().Keeps {
		return nil, fault.Unsupported.Errorf("%s is to be recorded, and presentation %s does not see what it shows; choose another", s.Ref(), s.Status.Way.Name)
	}
	if g.Recordings == nil {
		return nil, fault.Unsupported.Errorf("%s is to be recorded, and this plane keeps no recordings", s.Ref())
	}
	return g.Recordings.Begin(ctx, recording.Info{
		Project: s.Metadata.Project, Session: s.Metadata.Name, Desktop: s.Spec.Desktop, Person: s.Spec.Person,
		Context: v.context, Speaks: s.Status.Way.Protocol,
	}, func(err error) {
		g.Log.Error("gateway: a recording ends early", "session", s.Ref().String(), "error", err)
		if must {
			o.end(ended("It could not be recorded any longer."))
		}
	})
}

// untape ends a recording.
func (g *Gateway) untape(t *recording.Tape) {
	if t == nil {
		return
	}
	if err := t.Close(); err != nil {
		g.Log.Error("gateway: end a recording", "recording", t.ID(), "error", err)
	}
}

// onTape is a viewer to whom nothing is said that is not on the tape.
type onTape struct {
	io.ReadWriteCloser
	tape *recording.Tape
}

// taped has what is said to the viewer recorded, where there is a tape.
func taped(viewer io.ReadWriteCloser, t *recording.Tape) io.ReadWriteCloser {
	if t == nil {
		return viewer
	}
	return &onTape{viewer, t}
}

// Write implements io.Writer.
func (o *onTape) Write(b []byte) (int, error) {
	if err := o.tape.Add(recording.Shown, b); err != nil {
		return 0, err
	}
	return o.ReadWriteCloser.Write(b)
}

// mark notes an event on the viewer's tape, if there is one.
func mark(viewer io.ReadWriteCloser, e presentation.Event) {
	if o, is := viewer.(*onTape); is {
		_ = o.tape.Add(recording.Event, []byte(e.Name)) // it tells of an error itself
	}
}
