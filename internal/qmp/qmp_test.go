package qmp

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const hello = `{"QMP": {"version": {}, "capabilities": ["oob"]}}` + "\n"

// machine answers on the far end of a connection as a QEMU would; answer
// returns what it says to a command, "" for nothing.
func machine(t *testing.T, answer func(command, id string) string) *Client {
	t.Helper()
	ours, theirs := net.Pipe()
	go func() {
		defer theirs.Close()
		fmt.Fprint(theirs, hello)
		s := bufio.NewScanner(theirs)
		for s.Scan() {
			var q request
			if err := json.Unmarshal(s.Bytes(), &q); err != nil {
				t.Errorf("request %q: %v", s.Text(), err)
				return
			}
			line := fmt.Sprintf(`{"return": {}, "id": %q}`, q.ID)
			if q.Execute != "qmp_capabilities" {
				line = answer(q.Execute, q.ID)
			}
			if line == "hang up" {
				return
			}
			if line != "" {
				fmt.Fprintln(theirs, line)
			}
		}
	}()
	c, err := New(t.Context(), ours)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestRepliesFindTheirCommandsInAnyOrder(t *testing.T) {
	var held string
	c := machine(t, func(cmd, id string) string {
		line := fmt.Sprintf(`{"return": %q, "id": %q}`, cmd, id)
		if held == "" {
			held = line
			return ""
		}
		return line + "\n" + held
	})
	var wg sync.WaitGroup
	for _, cmd := range []string{"a", "b"} {
		wg.Go(func() {
			var got string
			if err := c.Execute(t.Context(), cmd, nil, &got); err != nil || got != cmd {
				t.Errorf("%s returned %q, %v", cmd, got, err)
			}
		})
	}
	wg.Wait()
}

func TestARefusalIsAnErrorWithItsClass(t *testing.T) {
	c := machine(t, func(_, id string) string {
		return fmt.Sprintf(`{"error": {"class": "DeviceNotFound", "desc": "no disk"}, "id": %q}`, id)
	})
	var refused *Error
	err := c.Execute(t.Context(), "device_del", nil, nil)
	if !errors.As(err, &refused) || refused.Class != "DeviceNotFound" || err.Error() != "device_del: no disk" {
		t.Errorf("error = %v", err)
	}
}

func TestTheOldestEventsAreDroppedAndCommandsGoOn(t *testing.T) {
	c := machine(t, func(_, id string) string {
		var b strings.Builder
		for i := range eventRoom + 10 {
			fmt.Fprintf(&b, "{\"event\": \"E%d\"}\n", i)
		}
		return b.String() + fmt.Sprintf(`{"return": {}, "id": %q}`, id)
	})
	if err := c.Execute(t.Context(), "x", nil, nil); err != nil {
		t.Fatal(err)
	}
	if got := <-c.Events(); got.Name != "E10" {
		t.Errorf("first event = %s, want E10", got.Name)
	}
}

func TestAHangUpFailsEveryWaitingCommand(t *testing.T) {
	c := machine(t, func(string, string) string { return "hang up" })
	for range 2 {
		if err := c.Execute(t.Context(), "quit", nil, nil); !errors.Is(err, ErrClosed) {
			t.Errorf("error = %v, want %v", err, ErrClosed)
		}
	}
	<-c.Done()
}

func TestACommandEndsWithItsContext(t *testing.T) {
	c := machine(t, func(string, string) string { return "" })
	ctx, cancel := context.WithCancel(t.Context())
	go cancel()
	if err := c.Execute(ctx, "slow", nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v, want %v", err, context.Canceled)
	}
}

func TestTheWaitForAGreetingEndsWithItsContext(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go cancel()
	if _, err := New(ctx, ours); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v, want %v", err, context.Canceled)
	}
}

func TestAnEndlessMessageIsRefused(t *testing.T) {
	r := bufio.NewReader(bytes.NewReader(bytes.Repeat([]byte("x"), maxMessage+1)))
	if _, err := ReadLine(r, maxMessage); err == nil || !strings.Contains(err.Error(), "longer") {
		t.Errorf("error = %v, want one about the length", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(hello))
	f.Add([]byte(`{"return": {}, "id": "1"}`))
	f.Add([]byte(`{"error": {"class": "GenericError", "desc": "x"}, "id": 7}`))
	f.Add([]byte(`{"event": "STOP", "data": {}, "timestamp": {"seconds": 1}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bufio.NewReader(bytes.NewReader(b))
		for {
			line, err := ReadLine(r, maxMessage)
			if err != nil {
				return
			}
			if m, err := decode(line); err == nil && m.Error != nil && m.Error.Class == "never" && m.Event == "never" {
				t.Log(m)
			}
		}
	})
}
