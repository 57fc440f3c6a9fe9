package fakehost

import (
	"context"
	"slices"

	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor/driver"
)

// Lacking returns h without some abilities, and saying so.
func Lacking(h driver.Host, lacks ...estate.Capability) driver.Host {
	return driver.Limit(lacking{h, lacks}, func(c estate.Capability) bool { return !slices.Contains(lacks, c) })
}

type lacking struct {
	driver.Host
	lacks []estate.Capability
}

func (l lacking) Unwrap() driver.Host { return l.Host }

func (l lacking) Describe(ctx context.Context) (driver.Description, error) {
	d, err := l.Host.Describe(ctx)
	d.Capabilities = slices.DeleteFunc(slices.Clone(d.Capabilities),
		func(c estate.CapabilityReport) bool { return slices.Contains(l.lacks, c.Name) })
	for _, c := range l.lacks {
		d.Capabilities = append(d.Capabilities, estate.CapabilityReport{Name: c, Reason: "taken away by a test"})
	}
	return d, err
}
