package agent

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/guest/files"
	"consort.dev/consort/hypervisor/driver"
)

// fileLimit is how long one file may take: 64 MiB go through a slow guest's agent
// in minutes.
const fileLimit = time.Hour

// serveFile carries one file between the tunnel and a guest.
func (a *Agent) serveFile(ctx context.Context, k *keeper, c api.Call) error {
	f := c.File
	switch {
	case f == nil, f.User == "", f.Size < 0:
		return fault.Invalid.Errorf("a file has a path, an account and a size")
	case estate.FileProblem(f.Path) != "":
		return fault.Invalid.Errorf("%s", estate.FileProblem(f.Path))
	}
	ctx, cancel := context.WithTimeout(ctx, fileLimit)
	defer cancel()
	conn, err := a.Plane.OpenCall(ctx, c.ID)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	file := files.File{User: f.User, Path: f.Path, Run: func(ctx context.Context, args []string, stdin []byte) (int, []byte, []byte, error) {
		out, err := a.Host.Run(ctx, k.id, driver.Command{Args: args, Stdin: stdin})
		return out.Exit, out.Stdout, out.Stderr, err
	}}
	t := carrier{conn, json.NewEncoder(conn)}
	if f.Out {
		return t.out(ctx, file, f.Size)
	}
	return t.in(ctx, file, f.Size)
}

// carrier is the tunnel of one file.
type carrier struct {
	conn net.Conn
	says *json.Encoder
}

// end says what became of the file.
func (t carrier) end(size int64, digest string, err error) error {
	if err != nil {
		return t.says.Encode(api.FileReply{Error: api.NewProblem(err)})
	}
	return t.says.Encode(api.FileReply{Size: size, Digest: estate.Digest("sha256:" + digest)})
}

// in carries so many bytes into the guest.
func (t carrier) in(ctx context.Context, f files.File, size int64) error {
	part, err := f.Begin(ctx)
	if err != nil {
		return t.end(0, "", err)
	}
	digest := ""
	err = t.says.Encode(api.FileReply{})
	if err == nil {
		err = part.Fill(ctx, &whole{t.conn, size})
	}
	if err == nil {
		digest, err = part.End(ctx)
	}
	if err != nil {
		err = errors.Join(err, part.Drop(ctx))
	}
	return t.end(size, digest, err)
}

// out carries the file out of the guest, if it is not longer than that.
func (t carrier) out(ctx context.Context, f files.File, most int64) error {
	size, err := f.Size(ctx)
	if err != nil {
		return t.end(0, "", err)
	}
	if err := t.says.Encode(api.FileReply{Size: size}); err != nil || size > most {
		return err // the plane says which rule that is
	}
	digest, err := f.Copy(ctx, t.conn, size)
	if err != nil {
		return err // the tunnel ends too early, which nobody takes for the whole
	}
	return t.end(size, digest, nil)
}

// whole yields exactly so many bytes: fewer are an error.
type whole struct {
	r    io.Reader
	left int64
}

// Read implements io.Reader.
func (w *whole) Read(p []byte) (int, error) {
	if w.left == 0 {
		return 0, io.EOF
	}
	n, err := w.r.Read(p[:min(int64(len(p)), w.left)])
	w.left -= int64(n)
	if err != nil && w.left > 0 {
		return n, fault.Unavailable.Errorf("the file broke off %d bytes before its end", w.left)
	}
	return n, nil
}
