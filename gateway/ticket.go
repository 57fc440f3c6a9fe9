package gateway

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/store"
)

const (
	ticketBytes = 32 // 256 bits
	ticketLife  = 30 * time.Second
	ticketKeys  = store.Secrets + "tickets/"
)

// errTicket is the one answer to every ticket that opens nothing, so that
// nobody learns which part was wrong.
var errTicket = fault.Denied.Errorf("this ticket opens nothing; ask for a new one and use it once, within half a minute")

// binding is what a ticket opens and for whom.
type binding struct {
	Project  string    `json:"project"`
	Session  string    `json:"session"`
	UID      string    `json:"uid"` // of the session
	Person   string    `json:"person"`
	Desktop  string    `json:"desktop"`
	Machine  string    `json:"machine"` // its UID
	Protocol string    `json:"protocol"`
	Native   bool      `json:"native,omitempty"`
	Expires  time.Time `json:"expires"`
}

// fits reports whether the ticket is for what it leads to now.
func (b *binding) fits(v *visit) bool {
	return *b == bindingOf(v, b.Native, b.Expires)
}

func bindingOf(v *visit, native bool, expires time.Time) binding {
	m := v.session.Metadata
	return binding{
		Project: m.Project, Session: m.Name, UID: m.UID,
		Person: v.session.Spec.Person, Desktop: v.session.Spec.Desktop,
		Machine: v.machine.Metadata.UID, Protocol: v.session.Status.Way.Protocol,
		Native: native, Expires: expires,
	}
}

// Issue returns a ticket that opens the session once within half a minute. With
// native it comes with a secret, where the protocol has a place for one, that
// the viewer must show. A session that is not ready is fault.Conflict. The
// caller has checked that the asker may.
func (g *Gateway) Issue(ctx context.Context, s *estate.Session, native bool) (api.Ticket, error) {
	v, err := g.around(ctx, s)
	if err != nil {
		return api.Ticket{}, err
	}
	b := bindingOf(v, native, g.Now().Add(ticketLife).UTC().Truncate(time.Millisecond))
	t, err := g.tickets.issue(ctx, b)
	if err != nil {
		return api.Ticket{}, err
	}
	out := api.Ticket{Ticket: t, Expires: b.Expires}
	if native && v.provider.HasSecret() {
		out.Secret, err = v.provider.NewSecret(secretSource(t))
	}
	return out, err
}

// secretSource is the random source of the secret that belongs to a ticket.
// Derived, it need not be kept anywhere while the ticket waits.
func secretSource(ticket string) io.Reader {
	b, err := hkdf.Key(sha256.New, []byte(ticket), nil, "consort native viewer secret", 64)
	if err != nil {
		panic(err) // 64 bytes are not too long
	}
	return bytes.NewReader(b)
}

// tickets keeps tickets, hashed, in the store.
type tickets struct {
	kv     store.KV
	now    func() time.Time
	random io.Reader
}

func (t *tickets) issue(ctx context.Context, b binding) (string, error) {
	raw := make([]byte, ticketBytes)
	if _, err := io.ReadFull(t.random, raw); err != nil {
		return "", fault.Internal.Errorf("make a ticket: %w", err)
	}
	ticket := base64.RawURLEncoding.EncodeToString(raw)
	value, err := json.Marshal(b)
	if err != nil {
		return "", fault.Internal.Errorf("write a ticket: %w", err)
	}
	lease, err := t.kv.Lease(ctx, ticketLife)
	if err != nil {
		return "", fault.KindOf(err).Errorf("keep a ticket: %w", err)
	}
	key := ticketKey(ticket)
	_, err = t.kv.Commit(ctx, store.Txn{
		If:   []store.Compare{{Key: key}},
		Then: []store.Write{{Key: key, Value: value, Lease: lease}},
	})
	if err != nil {
		return "", fault.KindOf(err).Errorf("keep a ticket: %w", err)
	}
	return ticket, nil
}

// redeem uses the ticket up and returns what it is bound to. Of any number of
// callers one wins: the commit that deletes compares the revision it read. A
// commit whose reply was lost may have won, so nobody gets in by it.
func (t *tickets) redeem(ctx context.Context, ticket string) (binding, error) {
	var b binding
	if raw, err := base64.RawURLEncoding.DecodeString(ticket); err != nil || len(raw) != ticketBytes {
		return b, errTicket
	}
	key := ticketKey(ticket)
	e, err := t.kv.Get(ctx, key)
	if err != nil {
		return b, refusal(err)
	}
	_, err = t.kv.Commit(ctx, store.Txn{
		If:   []store.Compare{{Key: key, Revision: e.Revision}},
		Then: []store.Write{{Key: key, Delete: true}},
	})
	if err != nil {
		return b, refusal(err)
	}
	if err := json.Unmarshal(e.Value, &b); err != nil {
		return b, fault.Internal.Errorf("read a ticket: %w", err)
	}
	if !t.now().Before(b.Expires) {
		return b, errTicket
	}
	return b, nil
}

// refusal is the one answer, unless the store could not be asked.
func refusal(err error) error {
	switch k := fault.KindOf(err); k {
	case fault.NotFound, fault.Conflict, fault.OutcomeUnknown:
		return errTicket
	default:
		return k.Errorf("redeem a ticket: %w", err)
	}
}

// ticketKey is where a ticket is kept: under its hash.
func ticketKey(ticket string) string {
	h := sha256.Sum256([]byte(ticket))
	return ticketKeys + hex.EncodeToString(h[:])
}
