package rpc

import (
	"context"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/audit/chain"
	"consort.dev/consort/fault"
	"consort.dev/consort/recording"
)

// cinema has one recording that is whole, and one that is not.
type cinema struct{}

func (cinema) List(context.Context) ([]recording.Info, error) {
	return []recording.Info{{ID: "whole", Person: "ana"}}, nil
}

func (cinema) Verify(context.Context, string) (chain.Report, error) {
	return chain.Report{Frames: 7}, nil
}

func (cinema) Play(_ context.Context, id string, visit func(recording.Piece) error) error {
	switch id {
	case "altered":
		return fault.Conflict.Errorf("it is not as it was written")
	case "whole":
		if err := visit(recording.Piece{Kind: recording.Shown, At: 2 * time.Second, Data: []byte("picture")}); err != nil {
			return err
		}
		return visit(recording.Piece{Kind: recording.Event, At: 3 * time.Second, Data: []byte("first-frame")})
	case "empty":
		return nil
	}
	return fault.NotFound.Errorf("there is no recording %q", id)
}

func TestRecordingsAreForAdministratorsAndAuditors(t *testing.T) {
	p := start(t)
	p.server.Films = cinema{}
	for path, want := range map[string]string{
		"":              `"id":"whole"`,
		"/whole/verify": `"records":7`,
		"/whole":        "{\"at\":2000,\"shown\":\"cGljdHVyZQ==\"}\n{\"at\":3000,\"event\":\"first-frame\"}\n",
		"/empty":        "",
	} {
		if r := p.curl("root", "GET", "/v1/recordings"+path, ""); r.status != 200 || !strings.Contains(r.body, want) {
			t.Errorf("an administrator gets %q: %d %s, want %s", path, r.status, r.body, want)
		}
		if r := p.curl("ana", "GET", "/v1/recordings"+path, ""); r.status != 403 && r.status != 404 || strings.Contains(r.body, "cGljdHVyZQ") {
			t.Errorf("somebody else gets %q: %d %s", path, r.status, r.body)
		}
	}
	for path, want := range map[string]int{"/altered": 412, "/none": 404} {
		if r := p.curl("root", "GET", "/v1/recordings"+path, ""); r.status != want || !strings.Contains(r.header.Get("Content-Type"), "problem") {
			t.Errorf("%s: %d %s, want %d and a problem", path, r.status, r.body, want)
		}
	}
	p.server.Films = nil
	if r := p.curl("root", "GET", "/v1/recordings", ""); r.status == 200 {
		t.Errorf("without recordings: %s", r.body)
	}
}
