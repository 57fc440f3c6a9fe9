package rpc

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"

	"consort.dev/consort/api"
	"consort.dev/consort/audit/chain"
	"consort.dev/consort/fault"
	"consort.dev/consort/recording"
)

// Recordings are kept of sessions; *recording.Keeper is one.
type Recordings interface {
	List(ctx context.Context) ([]recording.Info, error)
	Verify(ctx context.Context, id string) (chain.Report, error)
	Play(ctx context.Context, id string, visit func(recording.Piece) error) error
}

// films is a list of recordings.
type films struct {
	Items []recording.Info `json:"items"`
}

// filmLine is one line of a recording on the wire. The last one may say why
// there are no more.
type filmLine struct {
	At    int64        `json:"at" doc:"Milliseconds since the beginning."`
	Shown []byte       `json:"shown,omitempty" doc:"What was sent to the viewer, in its protocol."`
	Event string       `json:"event,omitempty" doc:"What happened."`
	Error *api.Problem `json:"error,omitempty" doc:"What could not be read; alone on its line."`
}

// mayWatch checks that the caller may look at recordings, and that there are any.
func (c *call) mayWatch() error {
	switch {
	case !c.caller.Admin && !c.caller.Auditor:
		return fault.Denied.Errorf("look at recordings: only administrators and auditors may")
	case c.Films == nil:
		return fault.Unsupported.Errorf("this plane keeps no recordings")
	}
	return nil
}

func (c *call) recordings() error {
	if err := c.mayWatch(); err != nil {
		return err
	}
	list, err := c.Films.List(c.r.Context())
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, films{list})
}

func (c *call) verifyRecording() error {
	if err := c.mayWatch(); err != nil {
		return err
	}
	report, err := c.Films.Verify(c.r.Context(), c.r.PathValue("name"))
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, auditReport(report))
}

// playRecording serves a recording, once all of it was found to be as it was
// written.
func (c *call) playRecording() error {
	if err := c.mayWatch(); err != nil {
		return err
	}
	out := newLines(c.w)
	var buffered *bufio.Writer
	var to *json.Encoder
	begin := func() {
		out.begin()
		buffered = bufio.NewWriterSize(flushing{c.w, out.ctrl}, 64<<10)
		to = json.NewEncoder(buffered)
	}
	err := c.Films.Play(c.r.Context(), c.r.PathValue("name"), func(p recording.Piece) error {
		if to == nil {
			begin()
		}
		line := filmLine{At: p.At.Milliseconds()}
		if p.Kind == recording.Shown {
			line.Shown = p.Data
		} else {
			line.Event = string(p.Data)
		}
		return to.Encode(line)
	})
	switch {
	case err != nil && to == nil:
		return err
	case to == nil:
		begin()
	case err != nil:
		_ = to.Encode(filmLine{Error: api.NewProblem(err)}) // the reader may be gone
	}
	_ = buffered.Flush()
	return err
}
