package fleet

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// referee looks all the time, without a word of ours, where a machine runs and
// who has it defined: into the process table, and for what each vendor keeps on
// disk while it has a definition.
type referee struct {
	id      string
	defined map[string]string // by hypervisor: what is there exactly while it is defined
	runsBy  func(commandLine string) (hypervisor string)

	mu    sync.Mutex
	from  string // whose it was before the move that is under way
	wrong []string
	looks int
}

// lookEvery leaves the referee a few percent of one processor.
const lookEvery = 50 * time.Millisecond

// watch has the referee look until the test ends.
func (r *referee) watch(t testing.TB) {
	stop, ended := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() {
		close(stop)
		<-ended
	})
	go func() {
		defer close(ended)
		for tick := time.NewTicker(lookEvery); ; {
			select {
			case <-tick.C:
				r.look()
			case <-stop:
				tick.Stop()
				return
			}
		}
	}()
}

// sets says who has the machine before a move.
func (r *referee) sets(from string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.from = from
}

// verdict returns what has been wrong so far, and how often it was looked.
func (r *referee) verdict() (wrong []string, looks int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.wrong, r.looks
}

// look judges one moment. Of two copies the first is looked at again once the
// second was seen: if it is there still, both ran at that moment. A copy at the
// target runs only while the source has no definition.
func (r *referee) look() {
	seen := r.copies()
	var wrong []string
	for i, c := range seen {
		if i+1 < len(seen) && c.lives(r.id) {
			wrong = append(wrong, fmt.Sprintf("%s and %s run at once", c, seen[i+1]))
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range seen {
		if c.at != r.from && r.has(r.from) && c.lives(r.id) {
			wrong = append(wrong, fmt.Sprintf("%s runs while %s still has it defined", c, r.from))
		}
	}
	r.looks++
	for _, w := range wrong {
		if len(r.wrong) == 0 || !strings.HasSuffix(r.wrong[len(r.wrong)-1], w) {
			r.wrong = append(r.wrong, time.Now().Format("15:04:05.000 ")+w)
		}
	}
}

// has reports whether a hypervisor has the machine defined.
func (r *referee) has(hypervisor string) bool {
	_, err := os.Stat(r.defined[hypervisor])
	return err == nil
}

// incarnation is a process that runs the machine.
type incarnation struct {
	pid int
	at  string // hypervisor
}

func (c incarnation) String() string { return fmt.Sprintf("process %d of %s", c.pid, c.at) }

// lives reports whether the process still runs the machine.
func (c incarnation) lives(id string) bool { return strings.Contains(emulator(c.pid), id) }

// copies returns the processes that run the machine. One that has ended, or is
// just ending, has no command line.
func (r *referee) copies() (all []incarnation) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if line := emulator(pid); strings.Contains(line, r.id) {
			all = append(all, incarnation{pid, r.runsBy(line)})
		}
	}
	return all
}

// emulator returns the command line of a process that is an emulator.
func emulator(pid int) string {
	line, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	program, _, _ := bytes.Cut(line, []byte{0})
	if !strings.HasPrefix(filepath.Base(string(program)), "qemu-system") {
		return ""
	}
	return string(line)
}
