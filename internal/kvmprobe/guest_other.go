//go:build !(linux && amd64)

package kvmprobe

import (
	"errors"
	"time"
)

func runGuest(uint32) (time.Duration, error) {
	return 0, errors.New("it is probed on Linux and x86-64 only")
}
