package passes

import (
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// The test puts this file into two packages of a plane that it builds for itself,
// and has them call passes before and after whatever they write.

var passed struct {
	sync.Mutex
	order string         // that the counts are of
	times map[string]int // each step was passed
}

// passes writes down that the plane is before or after a step, where the step is
// about what the test has ordered to be watched, and ends the plane there if the
// order says so.
func passes(when string, step ...string) {
	dir := os.Getenv("CONSORT_DISPOSABLE_STEPS")
	if dir == "" {
		return
	}
	passed.Lock()
	defer passed.Unlock()
	order := filepath.Join(dir, "order")
	b, err := os.ReadFile(order)
	if err != nil {
		return
	}
	// Its first line is the step to die at, each other one a name.
	lines := strings.Split(string(b), "\n")
	about := func(part string) bool { return slices.Contains(lines[1:], path.Base(part)) }
	var parts []string
	for _, part := range step {
		if about(part) {
			parts = append(parts, path.Dir(part))
		}
	}
	if len(parts) == 0 {
		return
	}
	if passed.order != string(b) {
		passed.order, passed.times = string(b), map[string]int{}
	}
	at := when + " " + strings.Join(parts, ", ")
	passed.times[at]++
	at = fmt.Sprintf("%s, time %d", at, passed.times[at])
	f, err := os.OpenFile(filepath.Join(dir, "passed"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		fmt.Fprintln(f, at)
		f.Close()
	}
	if at == lines[0] {
		os.Remove(order) // the next plane is to live
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

// recorded names the step of writing a record.
func recorded(data []byte) string {
	var act struct{ What, On, Outcome string }
	if json.Unmarshal(data, &act) != nil {
		return ""
	}
	return "record " + act.What + " " + act.Outcome + "/" + path.Base(act.On)
}
