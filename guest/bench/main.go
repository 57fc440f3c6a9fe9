// Command bench is what runs inside a guest when hypervisors are compared: one
// workload, a second or two long, whose figures it prints as one line of JSON.
// In tcp and display the host measures and the guest does its part.
// It is static and needs nothing of its guest but Linux and root.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
)

// figures are what a workload measured, by name with the unit at its end.
type figures map[string]float64

// workload runs for about the time given and says what it measured.
type workload func(d time.Duration, args []string) (figures, error)

var workloads = map[string]workload{
	"cpu":      cpu,
	"memory":   memory,
	"switches": switches,
	"disk":     disk,
	"packets":  packets,
	"dirt":     dirt,
	"tcp":      tcp,
	"display":  display,
}

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	known := strings.Join(slices.Sorted(maps.Keys(workloads)), ", ")
	if len(args) < 2 {
		return fmt.Errorf("say which workload and how long, as: bench cpu 1s; there are: %s", known)
	}
	do, ok := workloads[args[0]]
	if !ok {
		return fmt.Errorf("there is no workload %q; there are: %s", args[0], known)
	}
	d, err := time.ParseDuration(args[1])
	if err != nil || d <= 0 {
		return fmt.Errorf("%q is no length of time; write 1s", args[1])
	}
	f, err := do(d, args[2:])
	if err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	return json.NewEncoder(out).Encode(f)
}
