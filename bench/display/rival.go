package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/coder/websocket"
)

// rival is Debian's websockify in front of a QEMU alone.
type rival struct {
	cmd    *exec.Cmd
	portal string
}

func startRival(ctx context.Context, screen string) (*rival, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &rival{portal: l.Addr().String()}
	l.Close() // websockify takes a port, not a socket
	r.cmd = exec.CommandContext(ctx, "websockify", "--unix-target="+screen, r.portal)
	r.cmd.Stderr = nil // it tells of every connection
	if err := r.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%w (it is Debian's package websockify)", err)
	}
	for end := time.Now().Add(20 * time.Second); ; {
		c, err := net.Dial("tcp", r.portal)
		if err == nil {
			c.Close()
			return r, nil
		}
		if time.Now().After(end) {
			r.stop()
			return nil, err
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// dial opens the screen through websockify at the address, as noVNC does.
func (r *rival) dial(ctx context.Context, address string) (net.Conn, error) {
	// A transport of its own, without the environment's proxies.
	ws, _, err := websocket.Dial(ctx, "ws://"+address+"/", &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: new(http.Transport)}, Subprotocols: []string{"binary"},
	})
	if err != nil {
		return nil, err
	}
	ws.SetReadLimit(-1)
	return websocket.NetConn(context.Background(), ws, websocket.MessageBinary), nil
}

// pids returns websockify's processes: it forks for each connection.
func (r *rival) pids() ([]int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	pids := []int{r.cmd.Process.Pid}
	for _, path := range stats {
		s, err := readStat(path)
		if err == nil && s.parent == r.cmd.Process.Pid {
			pids = append(pids, s.pid)
		} // one that is gone is nobody's child
	}
	return pids, nil
}

func (r *rival) stop() {
	_ = r.cmd.Process.Signal(os.Interrupt) // it may have ended
	_ = r.cmd.Wait()                       // however it ended
}
