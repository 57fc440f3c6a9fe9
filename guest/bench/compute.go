package main

import (
	"crypto/sha256"
	"runtime"
	"syscall"
	"time"
)

const mega = 1e6

// cpu hashes 64 KiB over and over on one processor: MB/s of SHA-256.
func cpu(d time.Duration, _ []string) (figures, error) {
	block := make([]byte, 64<<10)
	n, began := 0, time.Now()
	for time.Since(began) < d {
		sum := sha256.Sum256(block)
		copy(block, sum[:]) // each depends on the one before
		n += len(block)
	}
	return figures{"sha256_mb_per_s": float64(n) / mega / time.Since(began).Seconds()}, nil
}

// memory copies 32 MiB, more than caches hold: MB/s copied.
func memory(d time.Duration, _ []string) (figures, error) {
	from, to := make([]byte, 32<<20), make([]byte, 32<<20)
	for i := range from {
		from[i] = byte(i)
	}
	copy(to, from) // so that both are there
	n, began := 0, time.Now()
	for time.Since(began) < d {
		n += copy(to, from)
	}
	return figures{"copy_mb_per_s": float64(n) / mega / time.Since(began).Seconds()}, nil
}

// switches sends a byte to and fro between two threads through pipes: each way
// is a switch.
func switches(d time.Duration, _ []string) (figures, error) {
	var there, back [2]int
	for _, p := range []*[2]int{&there, &back} {
		if err := syscall.Pipe(p[:]); err != nil {
			return nil, err
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		b := make([]byte, 1)
		for {
			if n, err := syscall.Read(there[0], b); n != 1 || err != nil {
				return // the other end is closed
			}
			if _, err := syscall.Write(back[1], b); err != nil {
				return
			}
		}
	}()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	b := make([]byte, 1)
	n, began := 0, time.Now()
	var failed error
	for failed == nil && time.Since(began) < d {
		if _, failed = syscall.Write(there[1], b); failed == nil {
			_, failed = syscall.Read(back[0], b)
		}
		n += 2
	}
	took := time.Since(began)
	syscall.Close(there[1])
	<-done
	for _, fd := range []int{there[0], back[0], back[1]} {
		syscall.Close(fd)
	}
	return figures{"switches_per_s": float64(n) / took.Seconds()}, failed
}
