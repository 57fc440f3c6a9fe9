package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"

	"consort.dev/consort/api"
	"consort.dev/consort/fault"
)

// guestProgram is where the guest finds its workloads: on its disk, so that it
// is put there once.
const guestProgram = "/usr/local/sbin/consort-bench"

// piece is how much of a file a guest's agent takes with one command. Some of
// them have a serial line for it, and 30 s for each answer.
const piece = 48 << 10

// put puts the workloads, packed, on the guest's disk. Pieces are files until
// all are there: one that comes twice does no harm.
func (s *stand) put(ctx context.Context, program []byte) error {
	parts := guestProgram + ".parts"
	script := "mkdir -p " + parts + " && cat > " + parts + "/%05d"
	n := 0
	for part := range slices.Chunk(program, piece) {
		if _, err := s.run(ctx, part, "sh", "-c", fmt.Sprintf(script, n)); err != nil {
			return err
		}
		n++
	}
	_, err := s.run(ctx, nil, "sh", "-c", "cat "+parts+"/* | gunzip > "+guestProgram+" && chmod 755 "+guestProgram+" && rm -r "+parts+" && sync")
	return err
}

// workload runs one in the guest and returns its figures.
func (s *stand) workload(ctx context.Context, name string) (map[string]float64, error) {
	args := []string{guestProgram, name, fmt.Sprintf("%gs", s.o.seconds)}
	if name == "packets" {
		args = append(args, s.gateway)
	}
	out, err := s.run(ctx, nil, args...)
	if err != nil {
		return nil, err
	}
	var f map[string]float64
	return f, json.Unmarshal(out, &f)
}

// run runs a command in the guest; one that ends unequal to zero is an error.
func (s *stand) run(ctx context.Context, stdin []byte, args ...string) ([]byte, error) {
	out, err := s.client.Run(ctx, s.machine.Project, s.machine.Name, api.RunRequest{Args: args, Stdin: stdin})
	if err != nil {
		return nil, err
	}
	if out.Exit != 0 {
		return nil, fmt.Errorf("%s ended with %d: %s", strings.Join(args, " "), out.Exit, bytes.TrimSpace(out.Stderr))
	}
	return out.Stdout, nil
}

// zipped returns the file's bytes, made smaller: consoles are slow.
func zipped(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.Invalid.Errorf("the guest's workloads: %w; build them with 'make build', or name the program with --program", err)
	}
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
