package rpc

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/store"
)

// Files carries files between persons and their desktops, as far as contexts
// let it. What its methods refuse they say in fault's kinds.
type Files interface {
	SendFile(ctx context.Context, d *estate.Desktop, path string, size int64, r io.Reader) (estate.Digest, error)
	FetchFile(ctx context.Context, d *estate.Desktop, path string, begin func(size int64) io.Writer) (estate.Digest, error)
}

// refusedBody is how much of a file that is refused is read all the same: who
// still sends it may not hear why before.
const refusedBody = 8 << 20

// fileOf returns the desktop and the path of a request for a file.
func (c *call) fileOf() (d *estate.Desktop, path string, err error) {
	path = c.r.URL.Query().Get("path")
	if c.Files == nil {
		return nil, "", fault.Unsupported.Errorf("this plane carries no files")
	}
	if err := c.allow("connect", c.ref()); err != nil {
		return nil, "", err
	}
	d, err = store.Get[estate.Desktop](c.r.Context(), c.Store, c.ref().Project, c.ref().Name)
	return d, path, err
}

// sendFile takes the request's body for a file of the desktop's person.
func (c *call) sendFile() error {
	err := c.takeFile()
	if err != nil && c.r.Header.Get("Expect") == "" {
		_, _ = io.CopyN(io.Discard, c.r.Body, refusedBody)
	}
	return err
}

func (c *call) takeFile() error {
	d, path, err := c.fileOf()
	if err != nil {
		return err
	}
	size := c.r.ContentLength
	if size < 0 {
		return fault.Invalid.Errorf("send %s: say how long it is (Content-Length)", path)
	}
	c.with["bytes"] = fmt.Sprint(size)
	digest, err := c.Files.SendFile(c.r.Context(), d, path, size, c.r.Body)
	if err != nil {
		return err
	}
	c.with["digest"] = string(digest)
	return c.reply(http.StatusOK, api.FileReply{Size: size, Digest: digest})
}

// fetchFile answers with a file of the desktop's person. One that breaks off is
// shorter than its length says.
func (c *call) fetchFile() error {
	d, path, err := c.fileOf()
	if err != nil {
		return err
	}
	digest, err := c.Files.FetchFile(c.r.Context(), d, path, func(size int64) io.Writer {
		c.with["bytes"] = fmt.Sprint(size)
		h := c.w.Header()
		h.Set("Content-Type", "application/octet-stream")
		h.Set("Content-Length", fmt.Sprint(size))
		h.Set("Content-Disposition", "attachment; filename*=UTF-8''"+escaped(path[strings.LastIndexByte(path, '/')+1:]))
		c.w.WriteHeader(http.StatusOK)
		return c.w
	})
	if err == nil {
		c.with["digest"] = string(digest)
	}
	return err
}

// escaped writes a file's name as RFC 8187 wants it.
func escaped(name string) string {
	var b strings.Builder
	for _, c := range []byte(name) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte(".-_", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
