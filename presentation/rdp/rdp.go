// Package rdp presents a desktop that the guest itself serves by the remote
// desktop protocol.
package rdp

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/presentation/driver"
)

// Provider implements driver.Provider. What viewer and guest say is encrypted
// between them, so a policy that would need a look inside is refused rather
// than half kept. The zero Provider is ready for use.
type Provider struct{}

var _ driver.Provider = (*Provider)(nil)

// New returns the provider.
func New() *Provider { return &Provider{} }

// Describe implements driver.Provider.
func (*Provider) Describe(ctx context.Context) (estate.PresentationOffer, error) {
	return estate.PresentationOffer{Name: "rdp", Version: "1", Protocol: "rdp", Guest: true, File: "rdp"}, ctx.Err()
}

// Serve implements driver.Provider.
func (*Provider) Serve(ctx context.Context, s driver.Session) error {
	if err := keeps(s); err != nil {
		_ = s.Viewer.Close() // nothing was said yet
		_ = s.Machine.Close()
		return err
	}
	r := &relay{Session: s, events: make(chan driver.Event, 8)}
	done := make(chan error, 1)
	go func() {
		done <- r.run(ctx)
		close(r.events)
	}()
	for e := range r.events {
		if s.Report != nil {
			s.Report(e)
		}
	}
	return <-done
}

// keeps refuses what cannot be kept without a look inside. The default length
// of clipboard texts is nobody's wish; another length is.
func keeps(s driver.Session) error {
	c := s.Policy.Clipboard
	switch {
	case s.Own != nil:
		return fault.Unsupported.Errorf("it cannot hold keys back until the machine has an identity of its own; connect again in a moment")
	case s.Secret != "":
		return fault.Unsupported.Errorf("its viewers show no secret to us")
	case s.Policy.ViewOnly:
		return fault.Unsupported.Errorf("it cannot be made to look only; choose a presentation of the machine's screen")
	case s.Policy.Watermark != "":
		return fault.Unsupported.Errorf("it cannot draw into what the guest shows; choose a presentation of the machine's screen, or a context without a watermark")
	case s.Policy.Idle != 0:
		return fault.Unsupported.Errorf("it cannot tell when nobody types; choose a presentation of the machine's screen, or a context without an idle time-out")
	case c.Gesture || c.TTL != 0:
		return fault.Unsupported.Errorf("it cannot hold texts until they are asked for, nor take them back; choose a presentation of the machine's screen")
	case !c.In || !c.Out || c.MaxBytes != 0 && c.MaxBytes != estate.MiB:
		return fault.Unsupported.Errorf("it cannot hold a clipboard back; allow it both ways in the desktop's context, without a length, or choose a presentation of the machine's screen")
	}
	return nil
}

// File implements driver.Provider: a connection file of the protocol's viewers.
// They ask the person for the password; the file never holds one.
func (*Provider) File(ctx context.Context, h driver.Handoff) (driver.File, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "full address:s:%s\r\n", net.JoinHostPort(line(h.Host), strconv.Itoa(h.Port)))
	if h.User != "" {
		fmt.Fprintf(&b, "username:s:%s\r\n", line(h.User))
	}
	b.WriteString("prompt for credentials:i:1\r\n")
	b.WriteString("authentication level:i:0\r\n") // the guest's certificate is its own; the way there is ours
	b.WriteString("drivestoredirect:s:\r\nredirectprinters:i:0\r\nredirectsmartcards:i:0\r\n")
	return driver.File{Name: "desktop.rdp", Type: "application/x-rdp", Content: []byte(b.String())}, ctx.Err()
}

// line keeps a value on its line.
func line(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}
