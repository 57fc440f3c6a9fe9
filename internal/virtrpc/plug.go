package virtrpc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"libvirt.org/go/libvirtxml"

	"consort.dev/consort/fault"
)

// plugAlias begins the aliases of disks that were plugged in. The daemon keeps
// them with the running domain, so that it alone knows what is plugged.
const plugAlias = "ua-plug-"

// Plugged returns the disks that Plug added to the running domain, by name.
func (c *Client) Plugged(ctx context.Context, uuid string) (map[string]libvirtxml.DomainDisk, error) {
	all, err := c.disks(ctx, uuid)
	if err != nil {
		return nil, err
	}
	return plugged(all), nil
}

func (c *Client) disks(ctx context.Context, uuid string) ([]libvirtxml.DomainDisk, error) {
	text, err := c.XML(ctx, uuid, true)
	if err != nil {
		return nil, err
	}
	var x libvirtxml.Domain
	if err := x.Unmarshal(text); err != nil {
		return nil, fault.Internal.Errorf("read the daemon's definition of machine %s: %w", uuid, err)
	}
	if x.Devices == nil {
		return nil, nil
	}
	return x.Devices.Disks, nil
}

func plugged(disks []libvirtxml.DomainDisk) map[string]libvirtxml.DomainDisk {
	all := map[string]libvirtxml.DomainDisk{}
	for _, d := range disks {
		if d.Alias == nil {
			continue
		}
		if name, is := strings.CutPrefix(d.Alias.Name, plugAlias); is {
			all[name] = d
		}
	}
	return all
}

// Socket is where a domain takes disks while it runs.
type Socket struct {
	Slots int                // how many at once
	Place func(i int) string // names of places, as vda: the first that is free is taken
}

// Plug adds a disk to the running domain under a name of ours. The same disk
// under its name is success, another one fault.Exists; no free slot is
// fault.NoCapacity.
func (c *Client) Plug(ctx context.Context, uuid, name string, d libvirtxml.DomainDisk, s Socket) error {
	disks, err := c.disks(ctx, uuid)
	if err != nil {
		return err
	}
	plugs := plugged(disks)
	if p, is := plugs[name]; is {
		if !samePlug(p, d) {
			return fault.Exists.Errorf("machine %s has another disk %s attached", uuid, name)
		}
		return nil
	}
	if len(plugs) >= s.Slots {
		return fault.NoCapacity.Errorf("machine %s has no free slot for disk %s: all %d are taken", uuid, name, s.Slots)
	}
	d.Alias = &libvirtxml.DomainAlias{Name: plugAlias + name}
	d.Target.Dev = s.free(disks)
	text, err := d.Marshal()
	if err != nil {
		return err
	}
	err = c.Attach(ctx, uuid, text, Live)
	if err == nil || ctx.Err() != nil {
		return err
	}
	if plugs, again := c.Plugged(ctx, uuid); again == nil {
		if _, is := plugs[name]; is {
			return nil
		}
	}
	return err
}

// samePlug reports whether two disks are the same file in the same way. A disk's
// size is that of its file.
func samePlug(a, b libvirtxml.DomainDisk) bool {
	of := func(d libvirtxml.DomainDisk) string {
		if d.Source == nil || d.Source.File == nil || d.Driver == nil {
			return ""
		}
		return fmt.Sprint(d.Driver.Type, d.ReadOnly != nil, d.Source.File.File)
	}
	return of(a) != "" && of(a) == of(b)
}

// free returns the first place that no disk has.
func (s Socket) free(disks []libvirtxml.DomainDisk) string {
	for i := 0; ; i++ {
		place := s.Place(i)
		if !slices.ContainsFunc(disks, func(d libvirtxml.DomainDisk) bool { return d.Target != nil && d.Target.Dev == place }) {
			return place
		}
	}
}

// Pauses between two looks at whether a guest has let go.
const (
	firstLook = 10 * time.Millisecond
	lastLook  = 250 * time.Millisecond
)

// Unplug takes the disk out of the running domain and returns once the guest has
// let go of it. A guest that did not hear is asked again. An absent disk is
// success.
func (c *Client) Unplug(ctx context.Context, uuid, name string) error {
	for pause := firstLook; ; pause = min(2*pause, lastLook) {
		plugs, err := c.Plugged(ctx, uuid)
		if err != nil {
			return err
		}
		d, is := plugs[name]
		if !is {
			return nil
		}
		text, err := d.Marshal()
		if err != nil {
			return err
		}
		// Asked again while it is under way, the daemon refuses; that is no news.
		var refused *Error
		if err := c.Detach(ctx, uuid, text, Live); err != nil && !errors.As(err, &refused) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
