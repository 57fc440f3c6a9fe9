// Package remote serves a hypervisor driver from one process to another, over a
// unix socket that only the two may open.
package remote

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/internal/splice"
)

// call is the question of every method: those fields that the method has.
type call struct {
	ID    estate.MachineID   `json:"id,omitempty"`
	Def   *driver.Definition `json:"def,omitempty"`
	Grace time.Duration      `json:"grace,omitempty"`
	Disk  *driver.Disk       `json:"disk,omitempty"`
	Name  string             `json:"name,omitempty"`
	Cmd   *driver.Command    `json:"cmd,omitempty"`
}

// failure is an error on the wire.
type failure struct {
	Kind string `json:"kind"`
	Text string `json:"text"`
}

// protocol is what a display's connection is upgraded to.
const protocol = "consort-display"

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
	if p, ok := driver.As[driver.Hotplugger](h); ok {
		answer("attach", func(ctx context.Context, c call) (any, error) { return nil, p.Attach(ctx, c.ID, *c.Disk) })
		answer("detach", func(ctx context.Context, c call) (any, error) { return nil, p.Detach(ctx, c.ID, c.Name) })
		answer("attached", func(ctx context.Context, c call) (any, error) { return p.Attached(ctx, c.ID) })
	}
	if g, ok := driver.As[driver.Guest](h); ok {
		answer("run", func(ctx context.Context, c call) (any, error) { return g.Run(ctx, c.ID, *c.Cmd) })
	}
	if t, ok := driver.As[driver.Transferer](h); ok {
		mux.HandleFunc("POST /export", func(w http.ResponseWriter, r *http.Request) { export(w, r, t) })
		mux.HandleFunc("POST /import", func(w http.ResponseWriter, r *http.Request) {
			q := r.URL.Query()
			if err := t.Import(r.Context(), estate.MachineID(q.Get("id")), q.Get("disk"), r.Body); err != nil {
				fail(w, err)
				return
			}
			io.WriteString(w, "null\n")
		})
	}
	if d, ok := driver.As[driver.Displayer](h); ok {
		mux.HandleFunc("POST /display", func(w http.ResponseWriter, r *http.Request) { display(w, r, d) })
	}
	return mux
}

func basics(h driver.Host, answer func(string, func(context.Context, call) (any, error))) {
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

// export sends the disk as the body. A failure after its first byte is told in
// a trailer: a body that only ends would look complete.
func export(w http.ResponseWriter, r *http.Request, t driver.Transferer) {
	q := r.URL.Query()
	w.Header().Set("Trailer", failed)
	out := &counter{w: w}
	err := t.Export(r.Context(), estate.MachineID(q.Get("id")), q.Get("disk"), out)
	switch {
	case err == nil:
	case out.n == 0:
		w.Header().Del("Trailer")
		fail(w, err)
	default:
		text, _ := json.Marshal(failure{fault.KindOf(err).String(), err.Error()})
		w.Header().Set(failed, string(text))
	}
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// display turns the connection into the machine's screen.
func display(w http.ResponseWriter, r *http.Request, d driver.Displayer) {
	if r.Header.Get("Upgrade") != protocol {
		fail(w, fault.Invalid.Errorf("a display is reached by an upgrade to %s", protocol))
		return
	}
	screen, err := d.Display(r.Context(), estate.MachineID(r.URL.Query().Get("id")))
	if err != nil {
		fail(w, err)
		return
	}
	defer screen.Close()
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		fail(w, err)
		return
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+protocol+"\r\n\r\n"); err != nil {
		return
	}
	splice.Join(r.Context(), &buffered{conn, rw.Reader}, screen)
}

// buffered is a connection some bytes of which have been read already.
type buffered struct {
	net.Conn
	r *bufio.Reader
}

func (b *buffered) Read(p []byte) (int, error) { return b.r.Read(p) }
