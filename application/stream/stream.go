// Package stream is an application provider: an application is a read-only
// disk, plugged into the running machine, mounted in the guest and seen only by
// the application's own processes.
package stream

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"consort.dev/consort/application/driver"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// Config is what an operator tells the provider.
type Config struct {
	// Cache is a folder where package lists and archives are kept from build
	// to build. It is made when it is missing.
	Cache string
	// Fresh is how old the package lists may be; six hours when zero.
	Fresh time.Duration
}

// Provider delivers applications as disks.
type Provider struct{ config Config }

// New returns a provider.
func New(c Config) *Provider {
	if c.Fresh == 0 {
		c.Fresh = 6 * time.Hour
	}
	return &Provider{config: c}
}

// Describe implements driver.Provider.
func (p *Provider) Describe(ctx context.Context) (estate.DeliveryOffer, error) {
	return estate.DeliveryOffer{
		Name:    "stream",
		Version: "1",
		Needs:   []estate.Capability{estate.CanHotplug, estate.CanGuest},
		Agent:   true,
	}, ctx.Err()
}

// Attach implements driver.Provider. The disk is the whole layer, a local file;
// a layer fetched piece by piece will be another Path, nothing else changes.
func (p *Provider) Attach(ctx context.Context, m driver.Machine, l driver.Layer) error {
	// A guest that does not answer is told from one that does before anything
	// is plugged in.
	attached, err := p.Attached(ctx, m)
	if err != nil || slices.Contains(attached, l.Digest) {
		return err
	}
	head, err := headOf(l.Path)
	if err != nil {
		return err
	}
	serial := serial(l.Digest)
	if err := m.AttachDisk(ctx, driver.Disk{Name: serial, Path: l.Path, Size: l.Size}); err != nil {
		return err
	}
	_, err = run(ctx, m, "attach", l.Digest.Hex(), serial, strconv.FormatInt(int64(l.Size), 10), head)
	return err
}

// Attached implements driver.Provider.
func (p *Provider) Attached(ctx context.Context, m driver.Machine) ([]estate.Digest, error) {
	out, err := run(ctx, m, "attached")
	if err != nil {
		return nil, err
	}
	var ds []estate.Digest
	for hex := range strings.FieldsSeq(out) {
		if d := estate.Digest("sha256:" + hex); d.Problem() == "" {
			ds = append(ds, d)
		}
	}
	slices.Sort(ds)
	return slices.Compact(ds), nil
}

// Start implements driver.Provider.
func (p *Provider) Start(ctx context.Context, m driver.Machine, l driver.Layer, app driver.Launch) error {
	_, err := run(ctx, m, "start", append([]string{l.Digest.Hex(), app.User, app.Home}, app.Command...)...)
	return err
}

// Detach implements driver.Provider.
func (p *Provider) Detach(ctx context.Context, m driver.Machine, layer estate.Digest) error {
	_, err := run(ctx, m, "detach", layer.Hex())
	if err != nil && fault.KindOf(err) != fault.Unavailable {
		return err
	}
	// A guest that does not answer loses the disk all the same; what runs there
	// is not known to have ended, so the caller must come again.
	if gone := m.DetachDisk(ctx, serial(layer)); gone != nil && err == nil {
		err = gone
	}
	return err
}

// serial is what the guest finds the disk by; at most 20 bytes.
func serial(d estate.Digest) string { return "l-" + d.Hex()[:16] }

// headOf returns the SHA-256, in hexadecimal digits, of a layer's first 64 KiB:
// what the guest finds the disk by where disks have no serial number. All layers
// are longer, and no two begin alike: the superblock counts what is in them.
func headOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(f, grid)); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

//go:embed scripts/*.sh
var scripts embed.FS

// exits says what the scripts mean by their exit status.
func exits(status int) fault.Kind {
	switch status {
	case 10:
		return fault.Conflict // the layer is not attached
	case 11:
		return fault.Stuck // the command ended at once
	case 12:
		return fault.Unavailable // the disk did not appear
	case 13:
		return fault.Unsupported // the guest lacks a program
	case 14:
		return fault.Busy // the layer is in use
	}
	return fault.Internal
}

// run runs a script in the guest and returns what it printed.
func run(ctx context.Context, m driver.Machine, name string, args ...string) (string, error) {
	text, err := script(name)
	if err != nil {
		return "", err
	}
	out, err := m.Run(ctx, append([]string{"/bin/sh", "-s", "--"}, args...), text)
	if err != nil {
		return "", err
	}
	if out.Exit != 0 {
		said := strings.TrimSpace(string(bytes.ToValidUTF8(out.Stderr, []byte("?"))))
		if len(said) > 2000 {
			said = "... " + said[len(said)-2000:]
		}
		return "", exits(out.Exit).Errorf("%s", said)
	}
	return string(out.Stdout), nil
}

// script returns the text for the guest's shell. Scripts that start something
// bring those they need with them, so that a guest that outlives this version
// of us never runs an older one.
func script(name string) ([]byte, error) {
	var b bytes.Buffer
	bring := []string{}
	switch name {
	case "attach":
		bring = []string{"enter", "caches"}
	case "start":
		bring = []string{"enter"}
	}
	if len(bring) > 0 {
		b.WriteString("umask 022\n[ -d /run/consort ] || mkdir /run/consort\n")
	}
	for _, with := range bring {
		text, err := scripts.ReadFile(filepath.Join("scripts", with+".sh"))
		if err != nil {
			return nil, err
		}
		file := "/run/consort/" + with + ".sh"
		b.WriteString("cat >" + file + ".$$ <<'END OF " + with + "'\n") // two may do so at once
		b.Write(text)
		b.WriteString("END OF " + with + "\nmv " + file + ".$$ " + file + "\n")
	}
	text, err := scripts.ReadFile(filepath.Join("scripts", name+".sh"))
	if err != nil {
		return nil, err
	}
	b.Write(text)
	return b.Bytes(), nil
}
