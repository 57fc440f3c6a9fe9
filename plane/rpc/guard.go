package rpc

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/fault"
)

// Limits of a request.
const (
	largestBody = 4 << 20
	longest     = 30 * time.Second // a request that is not endless
)

// security is set on every answer. Pages come from us alone; noVNC needs blob
// and data images for cursors.
var security = [...][2]string{
	{"Content-Security-Policy", "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"},
	{"X-Content-Type-Options", "nosniff"},
	{"Referrer-Policy", "no-referrer"},
	{"Cross-Origin-Opener-Policy", "same-origin"},
	{"Cross-Origin-Resource-Policy", "same-origin"},
}

// guard is what happens around every request: its id, the headers, the
// limits, the log and what becomes of a panic.
func (s *Server) guard(w http.ResponseWriter, r *http.Request) {
	began := s.Now()
	id := s.requestID()
	h := w.Header()
	for _, kv := range security {
		h.Set(kv[0], kv[1])
	}
	h.Set("X-Request-Id", id)
	if strings.HasPrefix(r.URL.Path, "/v1/") {
		h.Set("Cache-Control", "no-store")
	}
	seen := &recorder{ResponseWriter: w}
	defer func() {
		if p := recover(); p != nil && p != http.ErrAbortHandler {
			s.Log.Error("panic", "request", id, "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
			if seen.status == 0 {
				answerError(seen, fault.Internal.Errorf("panic"))
			}
		}
		level := slog.LevelDebug
		if seen.status >= http.StatusInternalServerError {
			level = slog.LevelWarn
		}
		s.Log.Log(r.Context(), level, "request", "request", id, "method", r.Method, "path", r.URL.Path,
			"status", seen.status, "took", s.Now().Sub(began))
	}()
	var cross http.CrossOriginProtection
	if err := cross.Check(r); err != nil {
		answerError(seen, fault.Denied.Errorf("%s %s: a page from elsewhere may not do this; open Consort's own page", r.Method, r.URL.Path))
		return
	}
	if _, pattern := s.mux.Handler(r); r.Body != nil && r.Header.Get("Upgrade") == "" && !s.streams[pattern] {
		r.Body = http.MaxBytesReader(seen, r.Body, largestBody)
	}
	s.mux.ServeHTTP(seen, r)
}

func (s *Server) requestID() string {
	var b [8]byte
	if _, err := io.ReadFull(s.Random, b[:]); err != nil {
		return "none"
	}
	return hex.EncodeToString(b[:])
}

// handle wraps an operation: it finds the caller, sets the time-out and turns
// an error into a problem.
func (s *Server) handle(rt route) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var caller Caller
		if !rt.open {
			var err error
			if caller, err = s.Auth.Authenticate(r); err != nil {
				s.fail(w, r, err)
				return
			}
		}
		watching := rt.endless || r.URL.Query().Get("watch") == "true" || rt.path == api.WatchPath
		if !watching {
			ctx, cancel := context.WithTimeout(r.Context(), longest)
			defer cancel()
			r = r.WithContext(ctx)
		}
		c := &call{Server: s, w: w, r: r, route: &rt, caller: caller, with: map[string]string{}}
		if err := c.told(); err != nil {
			s.fail(w, r, err)
		}
	}
}

// fail answers with the problem. A caller who has left gets none.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	if fault.KindOf(err) == fault.Internal && r.Context().Err() == nil {
		s.Log.Error("request failed", "request", w.Header().Get("X-Request-Id"), "method", r.Method, "path", r.URL.Path, "error", err)
	}
	if rec, ok := w.(*recorder); ok && rec.status != 0 {
		return // the answer has begun
	}
	if r.Context().Err() == context.DeadlineExceeded {
		err = fault.OutcomeUnknown.Errorf("%s %s: it took longer than %s", r.Method, r.URL.Path, longest)
	}
	answerError(w, err)
}

func answerError(w http.ResponseWriter, err error) {
	p := api.NewProblem(err)
	w.Header().Set("Content-Type", api.ProblemType)
	if fault.Named(p.Kind) == fault.Unauthenticated {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	if after, ok := err.(interface{ RetryAfter() time.Duration }); ok {
		w.Header().Set("Retry-After", fmt.Sprint(int(after.RetryAfter().Seconds()+1)))
	}
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p)
}

// nothingHere answers what no route does.
func (s *Server) nothingHere(w http.ResponseWriter, r *http.Request) {
	answerError(w, fault.NotFound.Errorf("%s %s: there is nothing here; %s says what there is", r.Method, r.URL.Path, api.DocumentPath))
}

// body reads the request's body.
func (c *call) body() ([]byte, error) {
	data, err := io.ReadAll(c.r.Body)
	if err != nil {
		return nil, fault.Invalid.Errorf("read the request: %w; at most %d MiB", err, largestBody>>20)
	}
	return data, nil
}

// message decodes the request's body strictly. An empty one leaves v as it is.
func (c *call) message(v any) error {
	data, err := c.body()
	if err != nil || len(data) == 0 {
		return err
	}
	if ps := strict(data, "", v); len(ps) > 0 {
		return invalid(c.r.Method+" "+c.r.URL.Path, ps)
	}
	return nil
}

// reply answers with v as JSON.
func (c *call) reply(status int, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fault.Internal.Errorf("answer: %w", err)
	}
	c.w.Header().Set("Content-Type", "application/json")
	c.w.WriteHeader(status)
	_, _ = c.w.Write(append(data, '\n'))
	return nil
}

// recorder remembers the status of an answer.
type recorder struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach what lies below.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
