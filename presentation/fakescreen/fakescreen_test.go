package fakescreen_test

import (
	"io"
	"testing"

	"consort.dev/consort/presentation/drivertest"
	"consort.dev/consort/presentation/fakescreen"
)

func TestConformance(t *testing.T) {
	drivertest.Run(t, func(*testing.T) drivertest.Rig {
		return drivertest.Rig{
			Provider: new(fakescreen.Provider),
			Machine:  func(c io.ReadWriteCloser) drivertest.Machine { return fakescreen.StartMachine(c) },
			Viewer: func(c io.ReadWriteCloser, secret string) (drivertest.Viewer, error) {
				return fakescreen.OpenViewer(c, secret)
			},
		}
	})
}
