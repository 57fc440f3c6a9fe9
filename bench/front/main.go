// Command front measures what the front adds to a request, in time and in CPU,
// beside HAProxy on the same machine in the same run.
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"consort.dev/consort/bench/result"
	"consort.dev/consort/front"
)

const (
	replicas = 3
	conns    = 16              // clients, each with one connection that stays
	before   = 300             // requests of each that are not measured
	idle     = 2 * time.Second // for a part to come up
	tick     = 100.0           // of utime and stime a second (proc(5), sysconf(_SC_CLK_TCK))
)

func main() {
	out := flag.String("out", "bench/results/front.json", "where the result is written")
	rounds := flag.Int("rounds", 5, "rounds of each")
	each := flag.Duration("each", 3*time.Second, "length of a round")
	part := flag.String("part", "", "run as a part of the benchmark: front or replica")
	flag.Parse()
	runtime.LockOSThread() // parts end with the thread that started them (prctl(2), PR_SET_PDEATHSIG)
	var err error
	switch *part {
	case "front":
		err = runFront(flag.Args())
	case "replica":
		err = runReplica()
	default:
		err = run(context.Background(), *out, *rounds, *each)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench front:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out string, rounds int, each time.Duration) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var behind []string
	for range replicas {
		_, at, err := part(ctx, "replica")
		if err != nil {
			return err
		}
		behind = append(behind, at)
	}
	ours, at, err := part(ctx, append([]string{"front"}, behind...)...)
	if err != nil {
		return err
	}
	rival, rivalAt, err := haproxy(ctx, behind)
	if err != nil {
		return err
	}
	s := result.Samples{}
	for i := range rounds {
		for _, size := range []string{"small", "64k"} {
			// Interleaved, so that whatever else the machine does meets all.
			for _, w := range []struct {
				name, at string
				pid      int
			}{{"direct", behind[0], 0}, {"front", at, ours}, {"haproxy", rivalAt, rival}} {
				if err := measure(s, w.name+"_"+size, "http://"+w.at+"/"+size, w.pid, each); err != nil {
					return fmt.Errorf("%s, %s: %w", w.name, size, err)
				}
			}
		}
		fmt.Fprintf(os.Stderr, "\rround %d of %d ", i+1, rounds)
	}
	fmt.Fprintln(os.Stderr)
	s.Table(os.Stdout)
	return result.Write(out, "front", metrics(s), s)
}

// metrics are the middle rounds' figures.
func metrics(s result.Samples) map[string]float64 {
	m := map[string]float64{}
	for _, size := range []string{"small", "64k"} {
		for _, who := range []string{"front", "haproxy"} {
			name := who + "_" + size
			m[name+"_per_cpu_s"] = s.Percentile(name+"_per_cpu_s", 50)
			for _, p := range []string{"_p50_us", "_p99_us"} {
				m[who+"_"+size+"_added"+p] = s.Percentile(name+p, 50) - s.Percentile("direct_"+size+p, 50)
			}
		}
		m["front_to_haproxy_"+size+"_per_cpu_s"] = m["front_"+size+"_per_cpu_s"] / m["haproxy_"+size+"_per_cpu_s"]
	}
	return m
}

// measure asks for the URL for a while with clients that wait for each answer,
// and notes latencies, and requests for each second of the process's CPU.
func measure(s result.Samples, name, url string, pid int, each time.Duration) error {
	t := &http.Transport{MaxIdleConnsPerHost: conns}
	defer t.CloseIdleConnections()
	if err := load(t, url, func(n int) bool { return n < before }, func(time.Duration) {}); err != nil {
		return err
	}
	cpu, err := spent(pid)
	if err != nil {
		return err
	}
	took := result.Samples{}
	var mu sync.Mutex
	began := time.Now()
	err = load(t, url, func(int) bool { return time.Since(began) < each }, func(d time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		took.Add("us", float64(d.Nanoseconds())/1000)
	})
	if err != nil {
		return err
	}
	n := float64(len(took["us"]))
	s.Add(name+"_per_s", n/time.Since(began).Seconds())
	s.Add(name+"_p50_us", took.Percentile("us", 50))
	s.Add(name+"_p99_us", took.Percentile("us", 99))
	if pid != 0 {
		now, err := spent(pid)
		if err != nil {
			return err
		}
		s.Add(name+"_per_cpu_s", n/(now-cpu))
	}
	return nil
}

// load runs the clients, each while it may.
func load(t *http.Transport, url string, may func(n int) bool, took func(time.Duration)) error {
	failed := make(chan error, conns)
	var clients sync.WaitGroup
	for range conns {
		clients.Go(func() {
			for n := 0; may(n); n++ {
				began := time.Now()
				if err := once(t, url); err != nil {
					failed <- err
					return
				}
				took(time.Since(began))
			}
		})
	}
	clients.Wait()
	close(failed)
	return <-failed
}

func once(t *http.Transport, url string) error {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := t.RoundTrip(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if n, err := io.Copy(io.Discard, res.Body); err != nil || n != res.ContentLength || res.StatusCode != 200 {
		return errors.Join(fmt.Errorf("%s with %d bytes of %d", res.Status, n, res.ContentLength), err)
	}
	return nil
}

// spent is the CPU that a process has used, in seconds (proc(5), stat).
func spent(pid int) (float64, error) {
	if pid == 0 {
		return 0, nil
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	user, err := strconv.ParseFloat(fields[11], 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseFloat(fields[12], 64)
	return (user + system) / tick, err
}

// part starts this program as a part of the benchmark, which says its address.
func part(ctx context.Context, args ...string) (pid int, at string, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, "", err
	}
	cmd := exec.CommandContext(ctx, self, append([]string{"-part"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, "", err
	}
	if err := begin(cmd); err != nil {
		return 0, "", err
	}
	at, err = bufio.NewReader(out).ReadString('\n')
	return cmd.Process.Pid, strings.TrimSpace(at), err
}

// begin starts a process that ends when this one does, however that may be.
func begin(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd.Start()
}

// runReplica answers with small and larger bodies.
func runReplica() error {
	small, large := []byte("a small answer\n"), bytes.Repeat([]byte("64 KiB, "), 8<<10)
	mux := http.NewServeMux()
	for path, body := range map[string][]byte{"/small": small, "/64k": large} {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
			_, _ = w.Write(body)
		})
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	return http.Serve(l, mux)
}

// runFront is the front as the plane runs it, with replicas by address.
func runFront(behind []string) error {
	f, err := front.New(front.Options{
		Service: "bench", Objectives: []front.Objective{{Name: "300ms", Bound: 300 * time.Millisecond}},
		Dial: func(ctx context.Context, replica string, _ int) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", replica)
		},
	})
	if err != nil {
		return err
	}
	var all []front.Replica
	for _, at := range behind {
		all = append(all, front.Replica{Name: at, Port: 1})
	}
	if err := f.Set(all); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	return f.Serve(context.Background(), l, nil)
}

// haproxy starts the rival with its own choice by two random replicas, with
// connections that stay, and as the front with a header for where a request
// came from.
func haproxy(ctx context.Context, behind []string) (pid int, at string, err error) {
	dir, err := os.MkdirTemp("", "cbf")
	if err != nil {
		return 0, "", err
	}
	defer os.RemoveAll(dir)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, "", err
	}
	at = l.Addr().String()
	l.Close()
	var conf strings.Builder
	fmt.Fprintf(&conf, "global\n maxconn 4096\ndefaults\n mode http\n timeout connect 3s\n timeout client 120s\n timeout server 60s\n option http-keep-alive\n option forwardfor\n"+
		" http-reuse always\nfrontend f\n bind %s\n default_backend b\nbackend b\n balance random(2)\n", at)
	for i, b := range behind {
		fmt.Fprintf(&conf, " server s%d %s\n", i, b)
	}
	file := filepath.Join(dir, "haproxy.cfg")
	if err := os.WriteFile(file, []byte(conf.String()), 0o644); err != nil {
		return 0, "", err
	}
	cmd := exec.CommandContext(ctx, "haproxy", "-db", "-f", file)
	cmd.Stderr = os.Stderr
	if err := begin(cmd); err != nil {
		return 0, "", fmt.Errorf("%w; make test-deps installs it", err)
	}
	for deadline := time.Now().Add(idle); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", at)
		if err == nil {
			conn.Close()
			return cmd.Process.Pid, at, nil
		}
		if time.Now().After(deadline) {
			return 0, "", err
		}
	}
}
