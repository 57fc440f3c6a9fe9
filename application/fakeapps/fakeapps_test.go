package fakeapps_test

import (
	"testing"

	"consort.dev/consort/application/driver"
	"consort.dev/consort/application/drivertest"
	"consort.dev/consort/application/fakeapps"
	"consort.dev/consort/estate"
)

func TestConformance(t *testing.T) {
	drivertest.Run(t, func(*testing.T) drivertest.Fixture {
		p := fakeapps.New()
		return drivertest.Fixture{
			Provider: p,
			Machine:  drivertest.NewMachines(nil).Get,
			Processes: func(id estate.MachineID) (ps []drivertest.Process) {
				for _, r := range p.Guests.Processes(id) {
					ps = append(ps, drivertest.Process(r))
				}
				return ps
			},
			Another: func() driver.Provider { return &fakeapps.Provider{Guests: p.Guests} },
			Recipe:  driver.Recipe{Application: "clock", Packages: []string{"clock"}},
			Broken:  driver.Recipe{Application: "clock", Packages: []string{"absent"}},
		}
	})
}
