package remote

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

func diskOf(id estate.MachineID, disk string) url.Values {
	return url.Values{"id": {string(id)}, "disk": {disk}}
}

// Export implements driver.Transferer.
func (h *host) Export(ctx context.Context, id estate.MachineID, disk string, w io.Writer) error {
	res, err := h.c.post(ctx, "export", diskOf(id, disk), nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(w, res.Body); err != nil {
		return lost(ctx, "export", err)
	}
	text := res.Trailer.Get(failed)
	if text == "" {
		return nil
	}
	var f failure
	if err := json.Unmarshal([]byte(text), &f); err != nil {
		return lost(ctx, "export", err)
	}
	return fault.Named(f.Kind).Errorf("%s", f.Text)
}

// Import implements driver.Transferer.
func (h *host) Import(ctx context.Context, id estate.MachineID, disk string, r io.Reader) error {
	// Hidden, so that a body without length is sent as it comes.
	res, err := h.c.post(ctx, "import", diskOf(id, disk), struct{ io.Reader }{r})
	if err == nil {
		err = res.Body.Close()
	}
	return err
}

// Display implements driver.Displayer.
func (h *host) Display(ctx context.Context, id estate.MachineID) (io.ReadWriteCloser, error) {
	return h.connect(ctx, "display", id)
}

// Console implements driver.Consoler.
func (h *host) Console(ctx context.Context, id estate.MachineID) (io.ReadWriteCloser, error) {
	return h.connect(ctx, "console", id)
}

// connect makes a connection to the machine, which has one of its own.
func (h *host) connect(ctx context.Context, name string, id estate.MachineID) (io.ReadWriteCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	conn, err := h.c.dial(ctx)
	if err != nil {
		return nil, lost(ctx, name, err)
	}
	far, err := upgrade(ctx, conn, name, id)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return far, nil
}

func upgrade(ctx context.Context, conn net.Conn, name string, id estate.MachineID) (io.ReadWriteCloser, error) {
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	u := url.URL{Scheme: "http", Host: "driver", Path: "/" + name, RawQuery: url.Values{"id": {string(id)}}.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", protocol)
	if err := req.Write(conn); err != nil {
		return nil, lost(ctx, name, err)
	}
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, req)
	if err != nil {
		return nil, lost(ctx, name, err)
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		return nil, refusal(ctx, name, res)
	}
	if !stop() {
		return nil, ctx.Err()
	}
	return &buffered{conn, r}, nil
}

// Watch implements driver.Watcher. An answer that ends without being told to is
// a connection that broke.
func (h *host) Watch(ctx context.Context, changed func(estate.MachineID)) error {
	if ctx.Err() != nil {
		return nil
	}
	res, err := h.c.post(ctx, "watch", nil, strings.NewReader("{}"))
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	defer res.Body.Close()
	for lines := json.NewDecoder(res.Body); ; {
		var t told
		err := lines.Decode(&t)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fault.Unavailable.Errorf("watch in the driver's process: %w", err)
		case t.Failed != nil:
			return fault.Named(t.Failed.Kind).Errorf("%s", t.Failed.Text)
		}
		changed(t.ID)
	}
}
