package etcd_test

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"consort.dev/consort/fault"
	"consort.dev/consort/plane/store"
	"consort.dev/consort/plane/store/etcd"
	"consort.dev/consort/plane/store/storetest"
	"go.etcd.io/etcd/server/v3/embed"
)

func embedded(t *testing.T, dir string) *etcd.KV {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	kv, err := etcd.Embed(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kv.Close() })
	return kv
}

func TestEmbeddedConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.KV { return embedded(t, t.TempDir()) })
}

func TestClusterOfThreeConformance(t *testing.T) {
	if testing.Short() {
		t.Skip("a cluster of three takes its time; -short is given")
	}
	c := startCluster(t)
	storetest.Run(t, func(t *testing.T) store.KV { return c.open(t) })
}

func TestLossOfTheLeaderLosesNoAcknowledgedWrite(t *testing.T) {
	if testing.Short() {
		t.Skip("a cluster of three takes its time; -short is given")
	}
	c := startCluster(t)
	kv := c.open(t)
	var acknowledged []string
	for i := range 100 {
		if i == 50 {
			c.stopLeader(t)
		}
		key := fmt.Sprintf("/k/%03d", i)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		_, err := kv.Commit(ctx, store.Txn{Then: []store.Write{{Key: key, Value: []byte(key)}}})
		cancel()
		switch {
		case err == nil:
			acknowledged = append(acknowledged, key)
		case fault.KindOf(err) != fault.OutcomeUnknown:
			t.Errorf("a write while the leader is lost: %v, want success or %v", err, fault.OutcomeUnknown)
		}
	}
	for _, key := range acknowledged {
		if e, err := kv.Get(t.Context(), key); err != nil || string(e.Value) != key {
			t.Errorf("acknowledged %s is %q, %v", key, e.Value, err)
		}
	}
	if len(acknowledged) < 90 {
		t.Errorf("%d of 100 writes acknowledged, want at least 90", len(acknowledged))
	}
}

func TestEmbeddedKeepsItsKeysOverARestart(t *testing.T) {
	dir := t.TempDir()
	kv := embedded(t, dir)
	if _, err := kv.Commit(t.Context(), store.Txn{Then: []store.Write{{Key: "/a", Value: []byte("1")}}}); err != nil {
		t.Fatal(err)
	}
	if err := kv.Close(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	e, err := embedded(t, dir).Get(t.Context(), "/a")
	if err != nil || string(e.Value) != "1" {
		t.Errorf("after a restart %q, %v; want 1", e.Value, err)
	}
	t.Logf("up again after %v", time.Since(began))
}

func TestEmbeddedListensInItsPrivateFolderOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	embedded(t, dir)
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder has mode %v, %v; want 0700", info.Mode(), err)
	}
	for inode := range tcpListeners(t) {
		t.Errorf("this process listens on a TCP socket: %s", inode)
	}
	sockets := 0
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type()&fs.ModeSocket != 0 {
			sockets++
		}
		return err
	})
	if err != nil || sockets == 0 {
		t.Errorf("%d sockets in the folder, %v; want some", sockets, err)
	}
}

// tcpListeners returns the listening TCP sockets of this process.
func tcpListeners(t *testing.T) map[string]bool {
	t.Helper()
	mine := map[string]bool{}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skipf("no /proc: %v", err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil {
			mine[to] = true
		}
	}
	found := map[string]bool{}
	for _, table := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		text, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		for _, line := range strings.Split(string(text), "\n")[1:] {
			f := strings.Fields(line)
			// st 0A is TCP_LISTEN (proc(5)).
			if len(f) > 9 && f[3] == "0A" && mine["socket:["+f[9]+"]"] {
				found[f[1]] = true
			}
		}
	}
	return found
}

func TestEmbeddedTwiceInOneFolderIsBusy(t *testing.T) {
	dir := t.TempDir()
	embedded(t, dir)
	_, err := etcd.Embed(t.Context(), dir)
	if err == nil || fault.KindOf(err) != fault.Busy {
		t.Errorf("a second Embed = %v, want %v", err, fault.Busy)
	}
}

func TestEmbeddedWorksInAFolderWithALongName(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 40))
	kv := embedded(t, dir)
	if _, err := kv.Commit(t.Context(), store.Txn{Then: []store.Write{{Key: "/a"}}}); err != nil {
		t.Error(err)
	}
}

func TestClusterThatDoesNotAnswerIsUnavailable(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := etcd.Open(ctx, etcd.Config{Endpoints: []string{"http://127.0.0.1:1"}})
	if err == nil || fault.KindOf(err) != fault.Unavailable {
		t.Errorf("Open = %v, want %v", err, fault.Unavailable)
	}
}

// cluster is three members on loopback.
type cluster struct {
	members   []*embed.Etcd
	stops     []func() // may be called twice, as Close may not
	endpoints []string
}

func startCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{}
	var configs []*embed.Config
	var initial []string
	for i := range 3 {
		client, peer := loopback(t), loopback(t)
		cfg := embed.NewConfig()
		cfg.Name, cfg.Dir = fmt.Sprintf("m%d", i), t.TempDir()
		cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
		cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
		cfg.LogLevel = "fatal"
		configs = append(configs, cfg)
		initial = append(initial, cfg.Name+"="+peer.String())
		c.endpoints = append(c.endpoints, client.String())
	}
	for _, cfg := range configs {
		cfg.InitialCluster = strings.Join(initial, ",")
		m, err := embed.StartEtcd(cfg)
		if err != nil {
			t.Fatal(err)
		}
		c.stops = append(c.stops, sync.OnceFunc(m.Close))
		t.Cleanup(c.stops[len(c.stops)-1])
		c.members = append(c.members, m)
	}
	for _, m := range c.members {
		select {
		case <-m.Server.ReadyNotify():
		case <-time.After(time.Minute):
			t.Fatal("the cluster did not form")
		}
	}
	return c
}

func loopback(t *testing.T) url.URL {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return url.URL{Scheme: "http", Host: l.Addr().String()}
}

// open returns a client of the cluster, which it empties first.
func (c *cluster) open(t *testing.T) *etcd.KV {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	kv, err := etcd.Open(ctx, etcd.Config{Endpoints: c.endpoints})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kv.Close() })
	page, err := kv.List(ctx, "/", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range page.Entries {
		if _, err := kv.Commit(ctx, store.Txn{Then: []store.Write{{Key: e.Key, Delete: true}}}); err != nil {
			t.Fatal(err)
		}
	}
	return kv
}

func (c *cluster) stopLeader(t *testing.T) {
	t.Helper()
	for i, m := range c.members {
		if m.Server.Leader() == m.Server.MemberID() {
			c.stops[i]()
			return
		}
	}
	t.Fatal("no leader")
}
