package qga

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"consort.dev/consort/fault"
)

// agent is a guest agent that runs nothing: every command "prints" its input
// and exits with the number of its arguments once it was polled polls times.
type agent struct {
	noise string // said before the first answer to every new connection
	polls int
	mute  string // the command it never answers
	lacks string // the program that is not there

	mu    sync.Mutex
	dials int
}

// becomes changes the agent while it serves.
func (a *agent) becomes(mute string, polls int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mute, a.polls = mute, polls
}

func (a *agent) dial(context.Context) (net.Conn, error) {
	ours, theirs := net.Pipe()
	a.mu.Lock()
	a.dials++
	a.mu.Unlock()
	go a.serve(theirs)
	return ours, nil
}

func (a *agent) serve(conn net.Conn) {
	defer conn.Close()
	type exec struct {
		exit, polls int
		in          string
	}
	var runs []exec
	s := bufio.NewScanner(conn)
	s.Buffer(nil, 8<<20)
	for s.Scan() {
		var q struct {
			Execute   string
			Arguments struct {
				ID   int64
				PID  int
				Arg  []string
				In   string `json:"input-data"`
				Path string
			}
		}
		if err := json.Unmarshal(bytes.TrimLeft(s.Bytes(), "\xff"), &q); err != nil {
			fmt.Fprintf(conn, `{"error": {"desc": "bad json"}}`+"\n")
			continue
		}
		a.mu.Lock()
		mute, polls := a.mute, a.polls
		a.mu.Unlock()
		if q.Execute == mute {
			continue
		}
		switch q.Execute {
		case "guest-sync-delimited":
			fmt.Fprintf(conn, "%s\xff{\"return\": %d}\n", a.noise, q.Arguments.ID)
		case "guest-exec":
			if q.Arguments.Path == a.lacks {
				fmt.Fprintln(conn, `{"error": {"class": "GenericError", "desc": "no such file"}}`)
				continue
			}
			runs = append(runs, exec{len(q.Arguments.Arg), polls, q.Arguments.In})
			fmt.Fprintf(conn, "{\"return\": {\"pid\": %d}}\n", len(runs)-1)
		case "guest-exec-status":
			e := &runs[q.Arguments.PID]
			if e.polls--; e.polls > 0 {
				fmt.Fprintln(conn, `{"return": {"exited": false}}`)
				continue
			}
			fmt.Fprintf(conn, "{\"return\": {\"exited\": true, \"exitcode\": %d, \"out-data\": %q}}\n", e.exit, e.in)
		}
	}
}

func TestRunReturnsWhatTheCommandLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &agent{polls: 5, noise: "{\"return\": {\"pid\": 3}}\nhalf a li\xff{\"return\": 1}\n"}
		c := New(a.dial)
		defer c.Close()
		got, err := c.Run(t.Context(), []string{"sh", "a", "b"}, []byte("secret"))
		if err != nil || got.Exit != 2 || string(got.Stdout) != "secret" {
			t.Errorf("Run = %+v, %v; want exit 2 and the input", got, err)
		}
	})
}

func TestOutputIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New((&agent{}).dial)
		defer c.Close()
		got, err := c.Run(t.Context(), []string{"cat"}, make([]byte, maxOutput+1))
		if err != nil || len(got.Stdout) != maxOutput {
			t.Errorf("Run = %d bytes, %v; want %d", len(got.Stdout), err, maxOutput)
		}
	})
}

func TestAProgramThatIsNotThereExitsWith127(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New((&agent{lacks: "absent"}).dial)
		defer c.Close()
		got, err := c.Run(t.Context(), []string{"absent"}, nil)
		if err != nil || got.Exit != 127 || !strings.Contains(string(got.Stderr), "no such file") {
			t.Errorf("Run = %+v, %v; want exit 127 and why", got, err)
		}
	})
}

func TestASilentAgentIsUnavailable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New((&agent{mute: "guest-sync-delimited"}).dial)
		defer c.Close()
		if _, err := c.Run(t.Context(), []string{"true"}, nil); !errors.Is(err, fault.Unavailable) {
			t.Errorf("error = %v, want %v", err, fault.Unavailable)
		}
	})
}

func TestAnAgentThatFallsSilentLeavesTheOutcomeUnknown(t *testing.T) {
	for _, mute := range []string{"guest-exec", "guest-exec-status"} {
		synctest.Test(t, func(t *testing.T) {
			c := New((&agent{mute: mute}).dial)
			defer c.Close()
			if _, err := c.Run(t.Context(), []string{"true"}, nil); fault.KindOf(err) != fault.OutcomeUnknown {
				t.Errorf("without %s: error = %v, want %v", mute, err, fault.OutcomeUnknown)
			}
		})
	}
}

func TestAClientGetsIntoStepAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &agent{mute: "guest-exec"}
		c := New(a.dial)
		defer c.Close()
		if _, err := c.Run(t.Context(), []string{"true"}, nil); err == nil {
			t.Fatal("a mute agent ran a command")
		}
		a.becomes("", 1)
		if _, err := c.Run(t.Context(), []string{"true"}, nil); err != nil || a.dials != 2 {
			t.Errorf("second Run = %v after %d dials, want success after 2", err, a.dials)
		}
	})
}

func TestShutdownWaitsForNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &agent{mute: "guest-shutdown", lacks: "/sbin/poweroff"}
		c := New(a.dial)
		defer c.Close()
		begin := time.Now()
		if err := c.Shutdown(t.Context()); err != nil || time.Since(begin) > 0 {
			t.Errorf("Shutdown = %v after %v, want success at once", err, time.Since(begin))
		}
		if _, err := c.Run(t.Context(), []string{"true"}, nil); err != nil {
			t.Errorf("a command after it: %v", err)
		}
	})
}

func TestALongCommandDoesNotKeepOthersWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &agent{polls: 1 << 30}
		c := New(a.dial)
		defer c.Close()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() {
			_, err := c.Run(ctx, []string{"sleep", "inf"}, nil)
			ended <- err
		}()
		synctest.Wait()
		a.becomes("", 1)
		if _, err := c.Run(t.Context(), []string{"true"}, nil); err != nil {
			t.Error(err)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the long command ended with %v, want %v", err, context.Canceled)
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("\xff{\"return\": 7}\n"))
	f.Add([]byte(`{"return": {"exited": true, "out-data": "` + base64.StdEncoding.EncodeToString([]byte("x")) + `"}}`))
	f.Add([]byte(`{"error": {"class": "GenericError", "desc": "x"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s status
		if decode(b, &s) == nil {
			if o := s.output(); len(o.Stdout) > maxOutput {
				t.Errorf("%d bytes of output", len(o.Stdout))
			}
		}
	})
}
