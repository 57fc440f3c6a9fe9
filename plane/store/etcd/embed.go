package etcd

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	"consort.dev/consort/fault"
	"consort.dev/consort/internal/flock"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"
)

const (
	// quota is the largest database etcd suggests.
	quota = 8 << 30
	// history is how many revisions a watch can go back. 125,000 revisions of
	// 2 KiB were 800 MB on disk.
	history = "50000"
	// longestSocket is what fits in sockaddr_un, with its final zero.
	longestSocket = 107
)

func quiet() *zap.Logger { return zap.NewNop() }

// Embed runs etcd in this process with its data in dir, which it makes with
// mode 0700. It listens on unix sockets in dir and nowhere else. A dir that
// another process uses is fault.Busy.
func Embed(ctx context.Context, dir string) (*KV, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fault.Invalid.Errorf("store folder: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fault.Unavailable.Errorf("make the store folder: %w", err)
	}
	// The sockets have mode 0755, so the folder is what keeps others out.
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fault.Unavailable.Errorf("close the store folder to others: %w", err)
	}
	unlock, err := lock(ctx, filepath.Join(dir, "lock"))
	if err != nil {
		return nil, err
	}
	k, err := serve(ctx, dir)
	if err != nil {
		unlock()
		return nil, err
	}
	stop := k.stop
	k.stop = func() error { defer unlock(); return stop() }
	return k, nil
}

// lock holds the folder until unlock, or until the process is gone.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := flock.Take(ctx, path)
	if errors.Is(err, flock.ErrHeld) {
		return nil, fault.Busy.Errorf("%s is in use by another consort; stop it first", filepath.Dir(path))
	}
	if err != nil {
		return nil, fault.Unavailable.Errorf("lock the store: %w", err)
	}
	return func() { f.Close() }, nil
}

// serve starts the server and waits until it takes requests.
func serve(ctx context.Context, dir string) (*KV, error) {
	sockets, err := socketDir(dir)
	if err != nil {
		return nil, err
	}
	cleanup := func() {
		if sockets != dir {
			os.RemoveAll(sockets)
		}
	}
	server, err := embed.StartEtcd(config(dir, sockets))
	if err != nil {
		cleanup()
		return nil, fault.Stuck.Errorf("start etcd in %s: %w", dir, err)
	}
	stop := func() error {
		defer cleanup()
		server.Close()
		return nil
	}
	select {
	case <-server.Server.ReadyNotify():
	case err := <-server.Err():
		return nil, fault.Stuck.Errorf("start etcd in %s: %w", dir, joined(err, stop()))
	case <-ctx.Done():
		return nil, fault.Unavailable.Errorf("start etcd in %s: %w", dir, joined(ctx.Err(), stop()))
	}
	// Requests go to the server directly; the socket is for backups by hand.
	return &KV{client: v3client.New(server.Server), stop: stop, done: make(chan struct{})}, nil
}

func joined(err, stop error) error {
	if stop != nil {
		return fmt.Errorf("%w; %w", err, stop)
	}
	return err
}

func config(dir, sockets string) *embed.Config {
	c := embed.NewConfig()
	c.Name, c.Dir = "consort", filepath.Join(dir, "data")
	client := url.URL{Scheme: "unix", Path: filepath.Join(sockets, "client")}
	peer := url.URL{Scheme: "unix", Path: filepath.Join(sockets, "peer")}
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.QuotaBackendBytes = quota
	c.AutoCompactionMode, c.AutoCompactionRetention = embed.CompactorModeRevision, history
	// A member alone has nobody to wait for: it elects itself at once.
	c.TickMs, c.ElectionMs = 20, 200
	c.MaxTxnOps = 1024
	c.EnableGRPCGateway = false
	// etcd reports its own end as an error; what matters comes back to us.
	c.LogLevel, c.LogOutputs = "fatal", []string{"stderr"}
	return c
}

// socketDir returns where sockets can be bound: dir, or a private folder with
// a short name when dir's is too long for a socket.
func socketDir(dir string) (string, error) {
	if len(filepath.Join(dir, "client")) <= longestSocket {
		return dir, nil
	}
	short, err := os.MkdirTemp("", "consort-")
	if err != nil {
		return "", fault.Unavailable.Errorf("make a folder for sockets: %w", err)
	}
	return short, nil
}
