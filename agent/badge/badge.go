// Package badge keeps what a host's agent proves itself to the plane with: a
// key that never leaves the host, and the plane's certificate for it.
package badge

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/fault"
	"consort.dev/consort/internal/atomicfile"
)

// Badge is a host's proof of who it is. It is safe for concurrent use.
type Badge struct {
	file string
	now  func() time.Time

	mu   sync.Mutex
	held identity
	cert tls.Certificate
}

// identity is what is kept in the file, mode 0600: key and certificate always
// fit each other because they are written together.
type identity struct {
	Plane       string `json:"plane"` // URL
	Hypervisor  string `json:"hypervisor"`
	Token       string `json:"token"` // SHA-256 of the token it joined with
	Key         string `json:"key"`
	Certificate string `json:"certificate"`
	Authority   string `json:"authority"`
}

func file(dir string) string { return filepath.Join(dir, "badge.json") }

// Open returns the badge in dir. A host that has not joined is fault.NotFound;
// a badge whose time is over is fault.Unauthenticated.
func Open(dir string, now func() time.Time) (*Badge, error) {
	data, err := os.ReadFile(file(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.NotFound.Errorf("this host has not joined a plane: start the agent with --join and --token-file")
	}
	if err != nil {
		return nil, fmt.Errorf("read the badge: %w", err)
	}
	b := &Badge{file: file(dir), now: now}
	if err := json.Unmarshal(data, &b.held); err != nil {
		return nil, fault.Stuck.Errorf("%s is damaged; join again with a new token: %w", b.file, err)
	}
	if err := b.load(); err != nil {
		return nil, fault.Stuck.Errorf("%s is damaged; join again with a new token: %w", b.file, err)
	}
	if !now().Before(b.cert.Leaf.NotAfter) {
		return nil, fault.Unauthenticated.Errorf("the certificate of hypervisor %s expired at %s; join again with a new token", b.held.Hypervisor, b.cert.Leaf.NotAfter.Format(time.RFC3339))
	}
	return b, nil
}

// Join trades the token for a badge and keeps it in dir. The same token again
// returns the badge it was traded for, while that is good.
func Join(ctx context.Context, dir, plane, token string, now func() time.Time) (*Badge, error) {
	t, err := api.ParseJoinToken(token)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(t.String()))
	traded := hex.EncodeToString(sum[:])
	if b, err := Open(dir, now); err == nil && b.held.Token == traded {
		return b, nil
	}
	client, err := api.NewClient(api.Options{Server: plane, TLS: t.TLS(), Agent: "consort-agent"})
	if err != nil {
		return nil, err
	}
	defer client.Close()
	key, request, err := ask(t.Hypervisor)
	if err != nil {
		return nil, err
	}
	made, err := client.Enrol(ctx, t.String(), request)
	if err != nil {
		return nil, fmt.Errorf("join %s as hypervisor %s: %w", plane, t.Hypervisor, err)
	}
	b := &Badge{file: file(dir), now: now, held: identity{Plane: plane, Hypervisor: t.Hypervisor, Token: traded}}
	return b, b.keep(key, made)
}

// ask makes a key and the request for its certificate.
func ask(hypervisor string) (key, request string, err error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	raw, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return "", "", err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: api.AgentSubject(hypervisor)}}, k)
	if err != nil {
		return "", "", err
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})),
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})), nil
}

// keep puts a new certificate in the place of the old.
func (b *Badge) keep(key string, made *api.Certificate) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held.Key, b.held.Certificate, b.held.Authority = key, made.Certificate, made.Authority
	if err := b.load(); err != nil {
		return fault.Internal.Errorf("the plane's certificate: %w", err)
	}
	data, err := json.MarshalIndent(b.held, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(b.file, append(data, '\n'), 0o600)
}

// load reads key and certificate out of what is held.
func (b *Badge) load() error {
	cert, err := tls.X509KeyPair([]byte(b.held.Certificate), []byte(b.held.Key))
	if err != nil {
		return err
	}
	if cert.Leaf == nil || api.AgentIn(cert.Leaf) != b.held.Hypervisor {
		return fault.Invalid.Errorf("it is not for hypervisor %s", b.held.Hypervisor)
	}
	b.cert = cert
	return nil
}

// Hypervisor returns whose badge it is.
func (b *Badge) Hypervisor() string { return b.held.Hypervisor }

// Plane returns the URL of the plane it is for.
func (b *Badge) Plane() string { return b.held.Plane }

// Expires returns when the certificate that is held ends.
func (b *Badge) Expires() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.cert.Leaf.NotAfter
}

// TLS returns how the plane is reached: it must be of the authority that made
// the badge, and sees the newest certificate at each connection.
func (b *Badge) TLS() *tls.Config {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(b.held.Authority))
	return &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: api.PlaneName, Time: b.now,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			cert := b.cert
			return &cert, nil
		},
	}
}

// rest returns how long until the certificate is to be renewed: after two
// thirds of its life, so that a third is left to try again.
func (b *Badge) rest() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	leaf := b.cert.Leaf
	return leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) * 2 / 3).Sub(b.now())
}

// Run renews the certificate in time, until ctx ends.
func (b *Badge) Run(ctx context.Context, client *api.Client, log *slog.Logger) error {
	wait := b.rest()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		err := b.renew(ctx, client)
		if wait = b.rest(); err != nil && ctx.Err() == nil {
			left := b.Expires().Sub(b.now())
			log.Warn("renew the certificate", "hypervisor", b.held.Hypervisor, "left", left, "error", err)
			wait = max(time.Second, min(left/20, time.Minute))
		}
	}
}

func (b *Badge) renew(ctx context.Context, client *api.Client) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	key, request, err := ask(b.held.Hypervisor)
	if err != nil {
		return err
	}
	made, err := client.Renew(ctx, b.held.Hypervisor, request)
	if err != nil {
		return err
	}
	return b.keep(key, made)
}
