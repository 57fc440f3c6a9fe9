// Package web holds the pages that people see and serves them.
package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"
)

// dist holds what "make web" built; in a fresh tree only placeholder.html.
//
//go:embed all:dist
var dist embed.FS

// Policy is the content security policy the pages are made for: no script or
// style in the markup, nothing from elsewhere. The display viewer decodes
// pictures and pointers through data: URLs.
const Policy = "default-src 'self'; img-src 'self' data:; connect-src 'self' ws: wss:; " +
	"object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

// Handler returns the pages. A file is served as it is; any other path is a
// page of the application and gets index.html, except below /v1/ and /assets/,
// where what is absent stays absent. Before "make web" has run, every page says so.
func Handler() http.Handler {
	root, err := fs.Sub(dist, "dist")
	if err != nil {
		panic(err) // the name is a constant and valid
	}
	return handler{root}
}

type handler struct{ files fs.FS }

func (h handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "pages are read with GET", http.StatusMethodNotAllowed)
		return
	}
	name := strings.TrimPrefix(path.Clean("/"+r.URL.Path), "/")
	// A compressed twin is a way of sending a file, not a file.
	if name != "" && !strings.HasSuffix(name, ".gz") && h.serve(w, r, name, http.StatusOK) {
		return
	}
	if strings.HasPrefix(name, "v1/") || strings.HasPrefix(name, "assets/") {
		http.NotFound(w, r)
		return
	}
	if h.serve(w, r, "index.html", http.StatusOK) || h.serve(w, r, "placeholder.html", http.StatusServiceUnavailable) {
		return
	}
	http.NotFound(w, r)
}

// serve answers with the file and reports whether there is one.
func (h handler) serve(w http.ResponseWriter, r *http.Request, name string, status int) bool {
	content, err := fs.ReadFile(h.files, name)
	if err != nil {
		return false
	}
	head := w.Header()
	head.Set("Content-Type", mediaType(name))
	head.Set("X-Content-Type-Options", "nosniff")
	head.Set("Cache-Control", "no-cache")
	if strings.HasPrefix(name, "assets/") { // their names hold the hash of their content
		head.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	if strings.HasSuffix(name, ".html") {
		head.Set("Content-Security-Policy", Policy)
	}
	if small, err := fs.ReadFile(h.files, name+".gz"); err == nil {
		head.Set("Vary", "Accept-Encoding")
		if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			head.Set("Content-Encoding", "gzip")
			content = small
		}
	}
	if status != http.StatusOK {
		w.WriteHeader(status)
		if r.Method != http.MethodHead {
			_, _ = w.Write(content) // the reader is gone: nobody to tell
		}
		return true
	}
	sum := sha256.Sum256(content)
	head.Set("ETag", `"`+hex.EncodeToString(sum[:12])+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	return true
}

// mediaType does not ask the host's tables, so that every host says the same.
func mediaType(name string) string {
	switch path.Ext(name) {
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".html":
		return "text/html; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	case ".txt":
		return "text/plain; charset=utf-8"
	}
	return "application/octet-stream"
}
