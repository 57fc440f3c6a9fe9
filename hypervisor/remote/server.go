// Package remote serves a hypervisor driver from one process to another, over a
// unix socket that only the two may open.
package remote

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// call is the question of every method: those fields that the method has.
type call struct {
	ID    estate.MachineID   `json:"id,omitempty"`
	Def   *driver.Definition `json:"def,omitempty"`
	Grace time.Duration      `json:"grace,omitempty"`
	Disk  *driver.Disk       `json:"disk,omitempty"`
	Name  string             `json:"name,omitempty"`
	Cmd   *driver.Command    `json:"cmd,omitempty"`

	At     string       `json:"at,omitempty"`
	CPUs   int          `json:"cpus,omitempty"`
	Memory estate.Bytes `json:"memory,omitempty"`
}

// failure is an error on the wire.
type failure struct {
	Kind string `json:"kind"`
	Text string `json:"text"`
}

// protocol is what the connection of a display or console is upgraded to.
const protocol = "consort-stream"

// failed is the trailer that ends a broken export, a failure as JSON.
const failed = "Consort-Failed"

// Serve answers calls that come in on l with h until l is closed or ctx ends.
// Then calls that are under way are cut; machines are left as they are.
func Serve(ctx context.Context, l net.Listener, h driver.Host) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	srv := &http.Server{
		Handler:           handler(h),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 10 * time.Second,
	}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	err := srv.Serve(l)
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func handler(h driver.Host) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, fault.Unsupported.Errorf("the driver has no %s", r.URL.Path))
	})
	answer := func(name string, do func(ctx context.Context, c call) (any, error)) {
		mux.HandleFunc("POST /"+name, func(w http.ResponseWriter, r *http.Request) {
			var c call
			if err := json.NewDecoder(r.Body).Decode(&c); err != nil {
				fail(w, fault.Invalid.Errorf("call of %s: %w", name, err))
				return
			}
			result, err := do(r.Context(), c)
			if err != nil {
				fail(w, err)
				return
			}
			json.NewEncoder(w).Encode(result) // a client that has gone reads no error either
		})
	}
	basics(h, answer)
	more(h, answer)
	streams(h, mux)
	return mux
}

// answerer serves a method of which everything fits into memory.
type answerer func(name string, do func(ctx context.Context, c call) (any, error))

func basics(h driver.Host, answer answerer) {
	answer("describe", func(ctx context.Context, _ call) (any, error) { return h.Describe(ctx) })
	answer("list", func(ctx context.Context, _ call) (any, error) { return h.List(ctx) })
	answer("define", func(ctx context.Context, c call) (any, error) {
		if c.Def == nil {
			return nil, fault.Invalid.Errorf("no definition given")
		}
		return nil, h.Define(ctx, *c.Def)
	})
	answer("start", func(ctx context.Context, c call) (any, error) { return nil, h.Start(ctx, c.ID) })
	answer("stop", func(ctx context.Context, c call) (any, error) { return nil, h.Stop(ctx, c.ID, c.Grace) })
	answer("delete", func(ctx context.Context, c call) (any, error) { return nil, h.Delete(ctx, c.ID) })
}

func fail(w http.ResponseWriter, err error) {
	kind := fault.KindOf(err)
	w.WriteHeader(kind.HTTPStatus())
	json.NewEncoder(w).Encode(failure{kind.String(), err.Error()})
}
