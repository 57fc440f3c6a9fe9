package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	hvdriver "consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/hypervisor/drivertest"
	"consort.dev/consort/internal/atomicfile"
)

// verifyOptions are the flags of hypervisor verify.
type verifyOptions struct {
	provider    string
	endpoint    string
	credentials string
	dir         string
	base        string
	guestType   string
	memory      int
	simulated   bool
	report      string
}

func newHypervisorVerify(c *cli) *cobra.Command {
	o := verifyOptions{}
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Hold a real host to the promises of its provider, and write a report",
		Long: `Hold a real host to the promises of its provider, and write a report.

This makes, starts, stops, changes and deletes scratch machines on the host, one
promise after the other, without a plane. It refuses a host that holds machines
of Consort's, and touches none that are not. The scratch machines have fixed IDs
and are deleted in the end, also when you interrupt it.

The report has the host's product, what it kept and what went wrong in the
host's own words, and no password. Read it, then send it to whoever maintains
the provider: it is what turns "declared" into "verified".`,
		Example: `  consort hypervisor verify --provider hyperv --endpoint 'https://hv1:5986/wsman?ca=hv1.pem' --credentials-file hv1
  consort hypervisor verify --provider qemu`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			open, ok := hypervisors[o.provider]
			if !ok {
				return usage{fmt.Errorf("there is no hypervisor provider %q; this build has: %s", o.provider, strings.Join(sortedKeys(hypervisors), ", "))}
			}
			return verify(cmd.Context(), o, open, c.out)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.provider, "provider", "", "what drives the host")
	f.StringVar(&o.endpoint, "endpoint", "", "where its API is reached; empty for that of this host")
	f.StringVar(&o.credentials, "credentials-file", "", "file with a user and a password for the endpoint, a line each")
	f.StringVar(&o.dir, "machine-dir", "", "directory for what the provider keeps here (default a new one, removed in the end)")
	f.StringVar(&o.base, "base", "", "raw disk that scratch machines boot from (default one that does nothing)")
	f.StringVar(&o.guestType, "guest-type", "", "type of guest on trial (default the host's usual one)")
	f.IntVar(&o.memory, "memory", 64, "MiB of memory of a scratch machine")
	f.BoolVar(&o.simulated, "simulated", false, "the endpoint is a simulator: what it shows verifies nothing")
	f.StringVar(&o.report, "report", "", "file for the report (default verify-PROVIDER.json)")
	return cmd
}

// opener opens a provider.
type opener func(context.Context, site) (hvdriver.Host, error)

// verify holds the host that open returns to every promise.
func verify(ctx context.Context, o verifyOptions, open opener, out io.Writer) (err error) {
	b, closing, err := newVerifyBench(ctx, o, open)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closing()) }()
	if err := vacant(ctx, b.Host); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sweep(b.Host)) }()
	verdicts := map[drivertest.Verdict]int{}
	report, err := drivertest.Check(ctx, b, func(r drivertest.Result) {
		verdicts[r.Verdict]++
		fmt.Fprintf(out, "%-8s %s\n", r.Verdict, strings.TrimSpace(r.Promise+"  "+strings.ReplaceAll(r.Reason, "\n", "; ")))
	})
	if ctx.Err() != nil {
		return ctx.Err() // cut short, it says nothing about the host
	}
	if report.Provider == "" {
		return err
	}
	file := cmp.Or(o.report, "verify-"+o.provider+".json")
	text, jsonErr := json.MarshalIndent(report, "", " ")
	if err := errors.Join(err, jsonErr, atomicfile.Write(file, append(text, '\n'), 0o644)); err != nil {
		return err
	}
	fmt.Fprintf(out, "\n%s on %s\n%d promises kept, %d broken, %d could not be tried; the report is in %s\n",
		report.Provider, report.Product, verdicts[drivertest.Kept], verdicts[drivertest.Broken], verdicts[drivertest.Skipped], file)
	if n := verdicts[drivertest.Broken]; n > 0 {
		return fault.Conflict.Errorf("the host breaks %s: send %s to whoever maintains the provider", count(n, "promise"), file)
	}
	return nil
}

// vacant refuses a host with machines of ours: the suite deletes its own by ID,
// and takes a host to be empty.
func vacant(ctx context.Context, h hvdriver.Host) error {
	all, err := h.List(ctx)
	if err != nil {
		return err
	}
	if len(all) > 0 {
		return fault.Conflict.Errorf("the host holds %s of Consort's, as %s: take one that holds none, or delete what an earlier run left", count(len(all), "machine"), all[0].ID)
	}
	return nil
}

// sweepLimit is how long deleting what is left may take.
const sweepLimit = 3 * time.Minute

// sweep deletes the scratch machines, whoever interrupted us.
func sweep(h hvdriver.Host) error {
	ctx, cancel := context.WithTimeout(context.Background(), sweepLimit)
	defer cancel()
	var errs []error
	for _, id := range drivertest.Scratch() {
		if err := h.Delete(ctx, id); err != nil {
			errs = append(errs, fmt.Errorf("scratch machine %s is left on the host: %w", id, err))
		}
	}
	return errors.Join(errs...)
}

// anew is a host that can be opened again in its place, as a new process does.
type anew struct {
	hvdriver.Host
	open func() (hvdriver.Host, error)
}

// Unwrap leads to the abilities of the host that is open now.
func (a *anew) Unwrap() hvdriver.Host { return a.Host }

// close gives the host up, where its driver holds on to anything.
func (a *anew) close() error {
	if c, ok := a.Host.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

func (a *anew) reopen() (hvdriver.Host, error) {
	if err := a.close(); err != nil {
		return nil, err
	}
	h, err := a.open()
	if err == nil {
		a.Host = h
	}
	return h, err
}

// newVerifyBench opens the host, with folders for what the suite uses.
func newVerifyBench(ctx context.Context, o verifyOptions, open opener) (b drivertest.Bench, closing func() error, err error) {
	scratch, err := os.MkdirTemp("", "verify")
	if err != nil {
		return b, nil, err
	}
	remove := func() error { return os.RemoveAll(scratch) }
	defer func() {
		if err != nil {
			err = errors.Join(err, remove())
		}
	}()
	files := filepath.Join(scratch, "files")
	at := site{dir: cmp.Or(o.dir, filepath.Join(scratch, "state")), run: filepath.Join(scratch, "r"), endpoint: o.endpoint, credentials: o.credentials}
	for _, dir := range []string{files, at.dir, at.run} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return b, nil, err
		}
	}
	if err := os.Chmod(scratch, 0o711); err != nil { // machines have users of their own
		return b, nil, err
	}
	h := &anew{open: func() (hvdriver.Host, error) { return open(ctx, at) }}
	if h.Host, err = h.open(); err != nil {
		return b, nil, err
	}
	b = drivertest.Bench{
		Host: h, Dir: files, GuestType: o.guestType, Simulated: o.simulated,
		Memory: estate.Bytes(o.memory) * estate.MiB, Reopen: h.reopen,
	}
	if err := verifyBase(&b, o.base); err != nil {
		return b, nil, errors.Join(err, h.close())
	}
	return b, func() error { return errors.Join(h.close(), remove()) }, nil
}

// verifyBase finds or makes the disk that scratch machines boot from.
func verifyBase(b *drivertest.Bench, path string) error {
	if path != "" {
		abs, err := filepath.Abs(path)
		if err != nil {
			return err
		}
		info, err := os.Stat(abs)
		if err != nil || info.Size()%512 != 0 || info.Size() == 0 {
			return errors.Join(fault.Invalid.Errorf("%s is no raw disk: its size is not a whole number of sectors", path), err)
		}
		b.Base = hvdriver.Content{Path: abs, Format: estate.Raw, Size: estate.Bytes(info.Size())}
		return nil
	}
	b.Raw = idleDisk()
	b.Base = hvdriver.Content{Path: filepath.Join(b.Dir, "base.img"), Format: estate.Raw, Size: estate.Bytes(len(b.Raw))}
	return os.WriteFile(b.Base.Path, b.Raw, 0o444)
}

// idleDisk is a disk whose boot sector halts the processor for ever: cli, hlt,
// and a jump back to hlt. A BIOS starts it, as it ends in 55 AA.
func idleDisk() []byte {
	b := make([]byte, 1<<20)
	copy(b, []byte{0xfa, 0xf4, 0xeb, 0xfd})
	b[510], b[511] = 0x55, 0xaa
	return b
}
