package main

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"
)

// Requests of Linux's virtual terminals (linux/vt.h), and the one that workloads
// draw on: no system has a login there.
const (
	vtActivate = 0x5606
	vtWait     = 0x5607
	terminal   = 12
)

// Keys that the host presses: the first begins the answers, the last ends it all.
const (
	keyAnswer = 'a'
	keyEnd    = 'q'
)

// display draws on a virtual terminal of its own: the whole screen in one colour
// after another, as fast as it goes, until the host presses a key; from then on
// one change for each key, until the host presses q. The host measures. What the
// guest says is how often it drew. d bounds the first part only where no host comes.
func display(d time.Duration, _ []string) (figures, error) {
	tty, err := os.OpenFile(fmt.Sprintf("/dev/tty%d", terminal), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("it has no virtual terminal to draw on: %w", err)
	}
	defer tty.Close()
	if err := show(tty); err != nil {
		return nil, fmt.Errorf("show terminal %d: %w", terminal, err)
	}
	raw, err := quiet(tty)
	if err != nil {
		return nil, err
	}
	defer raw()
	if _, err := tty.WriteString("\x1b[?25l\x1b[9;0]\x1b[14;0]"); err != nil { // no cursor, no blanking, no sleep
		return nil, err
	}
	keys := make(chan byte)
	done := make(chan struct{})
	defer close(done)
	go func() {
		b := make([]byte, 1)
		for {
			if n, err := tty.Read(b); n != 1 || err != nil {
				return
			}
			select {
			case keys <- b[0]:
			case <-done:
				return
			}
		}
	}()
	drawn, err := flicker(tty, keys, d+patience)
	if err != nil {
		return nil, err
	}
	answers, err := answer(tty, keys)
	return figures{"drawn": float64(drawn), "answers": float64(answers)}, err
}

// show brings the terminal to the front. Whoever had the screen gets it back
// when the machine starts anew.
func show(tty *os.File) error {
	for _, request := range []uintptr{vtActivate, vtWait} {
		if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, tty.Fd(), request, terminal); e != 0 {
			return e
		}
	}
	return nil
}

// quiet has keys come one by one and unseen, until back is called.
func quiet(tty *os.File) (back func(), err error) {
	var was syscall.Termios
	if err := termios(tty, syscall.TCGETS, &was); err != nil {
		return nil, err
	}
	is := was
	is.Lflag &^= syscall.ICANON | syscall.ECHO | syscall.ISIG
	is.Cc[syscall.VMIN], is.Cc[syscall.VTIME] = 1, 0
	return func() { _ = termios(tty, syscall.TCSETS, &was) }, termios(tty, syscall.TCSETS, &is)
}

func termios(tty *os.File, request uintptr, t *syscall.Termios) error {
	if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, tty.Fd(), request, uintptr(unsafe.Pointer(t))); e != 0 {
		return e
	}
	return nil
}

// flicker draws until a key comes.
func flicker(tty *os.File, keys <-chan byte, limit time.Duration) (drawn int, err error) {
	for began := time.Now(); time.Since(began) < limit; drawn++ {
		select {
		case <-keys:
			return drawn, paint(tty, 0)
		default:
		}
		if err := paint(tty, 1+drawn%7); err != nil {
			return drawn, err
		}
	}
	return drawn, errors.New("the host pressed no key")
}

// answer draws once for each key: black and white in turns.
func answer(tty *os.File, keys <-chan byte) (answers int, err error) {
	const black, white = 0, 7
	silence := time.NewTimer(patience)
	defer silence.Stop()
	for {
		select {
		case k := <-keys:
			if k == keyEnd {
				return answers, nil
			}
			if k != keyAnswer {
				continue
			}
			answers++
			if err := paint(tty, []int{black, white}[answers%2]); err != nil {
				return answers, err
			}
			silence.Reset(patience)
		case <-silence.C:
			return answers, errors.New("the host pressed no more keys")
		}
	}
}

// paint fills the screen with one of the eight colours of ECMA-48.
func paint(tty *os.File, colour int) error {
	_, err := fmt.Fprintf(tty, "\x1b[4%dm\x1b[H\x1b[2J", colour)
	return err
}
