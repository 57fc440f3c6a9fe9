package remote

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/internal/splice"
)

// streams serves the abilities whose question or answer is a stream.
func streams(h driver.Host, mux *http.ServeMux) {
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
		mux.HandleFunc("POST /display", func(w http.ResponseWriter, r *http.Request) { join(w, r, d.Display) })
	}
	if c, ok := driver.As[driver.Consoler](h); ok {
		mux.HandleFunc("POST /console", func(w http.ResponseWriter, r *http.Request) { join(w, r, c.Console) })
	}
	if p, ok := driver.As[driver.Watcher](h); ok {
		mux.HandleFunc("POST /watch", func(w http.ResponseWriter, r *http.Request) { watch(w, r, p) })
	}
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

// join turns the connection into one to the machine.
func join(w http.ResponseWriter, r *http.Request, open func(context.Context, estate.MachineID) (io.ReadWriteCloser, error)) {
	if r.Header.Get("Upgrade") != protocol {
		fail(w, fault.Invalid.Errorf("%s is reached by an upgrade to %s", r.URL.Path, protocol))
		return
	}
	far, err := open(r.Context(), estate.MachineID(r.URL.Query().Get("id")))
	if err != nil {
		fail(w, err)
		return
	}
	defer far.Close()
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		fail(w, err)
		return
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+protocol+"\r\n\r\n"); err != nil {
		return
	}
	splice.Join(r.Context(), &buffered{conn, rw.Reader}, far)
}

// buffered is a connection some bytes of which have been read already.
type buffered struct {
	net.Conn
	r *bufio.Reader
}

func (b *buffered) Read(p []byte) (int, error) { return b.r.Read(p) }

// told is one line of the answer to watch: a machine that changed, or how the
// watching failed.
type told struct {
	ID     estate.MachineID `json:"id,omitempty"`
	Failed *failure         `json:"failed,omitempty"`
}

// watch answers with a line for each change until the client goes.
func watch(w http.ResponseWriter, r *http.Request, d driver.Watcher) {
	flush := http.NewResponseController(w).Flush
	lines := json.NewEncoder(w)
	flush() // the client learns that it is being served
	err := d.Watch(r.Context(), func(id estate.MachineID) {
		lines.Encode(told{ID: id})
		flush()
	})
	if err != nil {
		lines.Encode(told{Failed: &failure{fault.KindOf(err).String(), err.Error()}})
	}
}
