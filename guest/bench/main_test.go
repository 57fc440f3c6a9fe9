package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// measure runs a workload and returns its figures, all of which are positive.
func measure(t *testing.T, args ...string) figures {
	t.Helper()
	var out bytes.Buffer
	if err := run(args, &out); err != nil {
		t.Fatal(err)
	}
	var f figures
	if err := json.Unmarshal(out.Bytes(), &f); err != nil {
		t.Fatalf("%s: %v", out.String(), err)
	}
	for name, v := range f {
		if v <= 0 {
			t.Errorf("%s is %v", name, v)
		}
	}
	return f
}

func TestEveryWorkloadSaysWhatItMeasured(t *testing.T) {
	for name, want := range map[string]string{"cpu": "sha256_mb_per_s", "memory": "copy_mb_per_s", "switches": "switches_per_s"} {
		if f := measure(t, name, "20ms"); f[want] == 0 {
			t.Errorf("%s measured %v, want %s", name, f, want)
		}
	}
}

func TestDiskLeavesNothingBehind(t *testing.T) {
	dir, err := os.MkdirTemp(".", "disk")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	f := measure(t, "disk", "20ms", dir)
	for _, want := range []string{"random_read_4k_iops", "random_write_4k_sync_iops", "sequential_write_mb_per_s"} {
		if f[want] == 0 {
			t.Errorf("measured %v, want %s", f, want)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}

func TestPacketsAreMeasuredAtEverySize(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("raw sockets need root")
	}
	f := measure(t, "packets", "200ms", "127.0.0.1")
	for _, want := range []string{"rtt_64_p50_us", "rtt_1500_p99_us", "rate_512_per_s"} {
		if f[want] == 0 {
			t.Errorf("measured %v, want %s", f, want)
		}
	}
	if f["rtt_64_p50_us"] > f["rtt_64_p99_us"] {
		t.Errorf("half of the trips take longer than nearly all: %v", f)
	}
}

func TestMistakesNameTheWorkloads(t *testing.T) {
	for _, args := range [][]string{nil, {"cpu"}, {"nothing", "1s"}, {"cpu", "soon"}, {"packets", "1s", "here"}} {
		err := run(args, new(bytes.Buffer))
		if err == nil {
			t.Errorf("%q passes", args)
		} else if len(args) < 2 && !strings.Contains(err.Error(), "switches") {
			t.Errorf("%q: %v does not say what there is", args, err)
		}
	}
}

func TestChecksumIsThatOfTheRFC(t *testing.T) {
	b := echo(64, 7)
	if len(b) != 44 || checksum(b) != 0 {
		t.Errorf("%d bytes with checksum %#x, want 44 whose sum with it is 0", len(b), checksum(b))
	}
	b[9] ^= 1
	if checksum(b) == 0 {
		t.Error("a changed packet has the same checksum")
	}
}

func TestTCPTakesGivesAndCounts(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().String()
	l.Close()
	_, port, _ := net.SplitHostPort(at)
	type result struct {
		moved figures
		err   error
	}
	end := make(chan result, 1)
	go func() {
		moved, err := tcp(50*time.Millisecond, []string{port})
		end <- result{moved, err}
	}()
	reach := func(first byte) *net.TCPConn {
		for stop := time.Now().Add(10 * time.Second); ; {
			conn, err := net.Dial("tcp4", at)
			if err == nil {
				conn.Write([]byte{first})
				return conn.(*net.TCPConn)
			}
			if time.Now().After(stop) {
				t.Fatal(err)
			}
		}
	}
	conn := reach(take)
	conn.Write(make([]byte, 100_000))
	conn.CloseWrite()
	var n int64
	if err := binary.Read(conn, binary.BigEndian, &n); err != nil || n != 100_000 {
		t.Errorf("the guest took %d, %v; want 100000", n, err)
	}
	conn.Close()
	conn = reach(give)
	got, err := io.Copy(io.Discard, conn)
	conn.Close()
	r := <-end
	if err != nil || r.err != nil || got == 0 || r.moved["given_bytes"] != float64(got) || r.moved["taken_bytes"] != 100_000 {
		t.Errorf("got %d, %v; the guest says %v, %v", got, err, r.moved, r.err)
	}
}
