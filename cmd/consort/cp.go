package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

func newCp(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cp FILE DESKTOP:PATH | DESKTOP:PATH FILE",
		Short: "Copy a file into a running desktop's home folder, or out of it",
		Long: `Copies one file between this machine and the home folder of a desktop's person,
as far as the desktop's context lets it. PATH goes down from the home folder; its
folders are made. A PATH that is empty or ends in / keeps the file's name. No
file that is there already is written over.`,
		Example: `  consort cp report.odt ana-office:Documents/
  consort cp ana-office:Documents/report.odt .`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: c.completeDesktops,
		RunE: func(cmd *cobra.Command, args []string) error {
			in, from := onDesktop(args[0])
			out, to := onDesktop(args[1])
			switch {
			case in == "" && out != "":
				return c.sendFile(cmd.Context(), args[0], out, to)
			case in != "" && out == "":
				return c.fetchFile(cmd.Context(), in, from, args[1])
			}
			return usage{fmt.Errorf("one of the two is on a desktop: write it as DESKTOP:PATH, and the other as a path of this machine")}
		},
	}
	c.projectFlag(cmd)
	return cmd
}

// onDesktop takes DESKTOP:PATH apart; a path of this machine has no desktop. One
// whose name has a colon is written as ./NAME.
func onDesktop(arg string) (desktop, file string) {
	desktop, file, has := strings.Cut(arg, ":")
	if !has || estate.NameProblem(desktop) != "" {
		return "", ""
	}
	return desktop, file
}

func (c *cli) sendFile(ctx context.Context, from, desktop, to string) error {
	client, err := c.plane()
	if err != nil {
		return err
	}
	f, err := os.Open(from)
	if err != nil {
		return fault.Invalid.Errorf("read what to send: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return fault.Invalid.Errorf("%s is not a file; one file is copied at a time", from)
	}
	if to == "" || strings.HasSuffix(to, "/") {
		to += filepath.Base(from)
	}
	p := newCarried(c.err, to, info.Size())
	defer p.end()
	done, err := client.SendFile(ctx, c.project, desktop, to, info.Size(), io.TeeReader(f, p))
	if err != nil {
		return err
	}
	p.end()
	fmt.Fprintf(c.out, "%s:%s  %d bytes  %s\n", desktop, to, done.Size, done.Digest)
	return nil
}

// fetchFile writes beside the name that the file is to have, which it gets when
// all of it came.
func (c *cli) fetchFile(ctx context.Context, desktop, from, to string) error {
	client, err := c.plane()
	if err != nil {
		return err
	}
	if info, err := os.Stat(to); err == nil && info.IsDir() || strings.HasSuffix(to, "/") {
		to = filepath.Join(to, path.Base(from))
	}
	if _, err := os.Lstat(to); err == nil {
		return fault.Exists.Errorf("%s is there already; choose another name", to)
	}
	body, size, err := client.FetchFile(ctx, c.project, desktop, from)
	if err != nil {
		return err
	}
	defer body.Close()
	part, err := os.CreateTemp(filepath.Dir(to), ".consort-*.part")
	if err != nil {
		return fault.Invalid.Errorf("write %s: %w", to, err)
	}
	defer os.Remove(part.Name()) // nothing by that name is left where it went well
	p := newCarried(c.err, from, size)
	defer p.end()
	_, err = io.Copy(io.MultiWriter(part, p), body)
	if closed := part.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return fault.Unavailable.Errorf("fetch %s: %w", from, err)
	}
	// A link is not made over what came meanwhile.
	if err := os.Link(part.Name(), to); err != nil {
		if os.IsExist(err) {
			return fault.Exists.Errorf("%s is there already; choose another name", to)
		}
		return fault.Invalid.Errorf("write %s: %w", to, err)
	}
	p.end()
	fmt.Fprintf(c.out, "%s  %d bytes\n", to, size)
	return nil
}

// carried tells how much of a file has gone, as it is written to.
type carried struct {
	bar        *bar
	name       string
	size, gone int64
	ended      bool
}

func newCarried(out io.Writer, name string, size int64) *carried {
	return &carried{bar: newBar(out), name: name, size: size}
}

// Write implements io.Writer.
func (p *carried) Write(b []byte) (int, error) {
	p.gone += int64(len(b))
	if p.bar.draws && p.size > 0 {
		p.bar.show(making{p.name, &estate.Work{Phase: fmt.Sprintf("%d of %d bytes", p.gone, p.size), Step: 1, Steps: 1, Percent: int(100 * p.gone / p.size)}})
	}
	return len(b), nil
}

func (p *carried) end() {
	if !p.ended {
		p.ended = true
		p.bar.end()
	}
}
