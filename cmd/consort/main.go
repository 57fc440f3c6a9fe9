// Command consort is the whole of Consort in one binary: the plane, the agent
// and the verbs that people use.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], standard())
	stop()
	os.Exit(code)
}

// terminal is what a command reads and writes.
type terminal struct {
	in       io.Reader
	out, err io.Writer
	people   bool // somebody reads what is written and can answer
	getenv   func(string) string
}

func standard() terminal {
	return terminal{os.Stdin, os.Stdout, os.Stderr, isTerminal(os.Stdin) && isTerminal(os.Stderr), os.Getenv}
}

// run does what the arguments say and returns the exit status: 0 done, 1 not
// done, 2 not understood, 130 interrupted.
func run(ctx context.Context, args []string, t terminal) int {
	c := &cli{terminal: t}
	root := newRoot(c)
	root.SetArgs(args)
	root.SetIn(t.in)
	root.SetOut(t.out)
	root.SetErr(t.err)
	err := root.ExecuteContext(ctx)
	return c.tell(ctx, err)
}
