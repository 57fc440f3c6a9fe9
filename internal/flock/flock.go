// Package flock holds a file for one process at a time.
package flock

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"
)

// ErrHeld says that another process holds the file.
var ErrHeld = errors.New("another process holds it")

// patience is how long Take waits: a process that was just killed and a child
// between its fork and its exec may hold the file for a moment yet.
const patience = 3 * time.Second

// Take holds the file, which it makes when it is absent, until it is closed or
// the process is gone. One that stays held is ErrHeld.
func Take(ctx context.Context, path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(patience); ; {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if err == syscall.EWOULDBLOCK {
			err = ErrHeld
		}
		if !errors.Is(err, ErrHeld) || time.Now().After(end) {
			f.Close()
			return nil, err
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		}
	}
}
