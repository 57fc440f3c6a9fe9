package auth

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"unicode/utf8"

	"consort.dev/consort/fault"
	"consort.dev/consort/plane/store"
	"golang.org/x/crypto/argon2"
)

// Cost is what one guess of a password costs whoever guesses.
type Cost struct {
	Memory  uint32 // KiB
	Rounds  uint32
	Threads uint8
}

// DefaultCost is the least that OWASP's password storage cheat sheet advises
// for argon2id.
func DefaultCost() Cost { return Cost{Memory: 19 << 10, Rounds: 2, Threads: 1} }

const (
	hashers          = 2   // passwords worked on at once, each with the memory of its Cost
	shortestPassword = 10  // characters
	longestPassword  = 256 // bytes
)

// password is what is stored of a password.
type password struct {
	Hash string // PHC string: carries its own salt and cost
}

// hash returns the PHC string of the password.
func (a *Auth) hash(ctx context.Context, secret string) (string, error) {
	salt := make([]byte, 16)
	if _, err := io.ReadFull(a.Random, salt); err != nil {
		return "", fault.Internal.Errorf("read randomness: %w", err)
	}
	sum, err := a.argon(ctx, secret, salt, a.Cost)
	if err != nil {
		return "", err
	}
	return phc(a.Cost, salt, sum), nil
}

// phc writes a hash as the PHC string format has it.
func phc(c Cost, salt, sum []byte) string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version,
		c.Memory, c.Rounds, c.Threads, b64.EncodeToString(salt), b64.EncodeToString(sum))
}

// argon works the hash out when it is its turn.
func (a *Auth) argon(ctx context.Context, secret string, salt []byte, c Cost) ([]byte, error) {
	select {
	case a.hashing <- struct{}{}:
		defer func() { <-a.hashing }()
	case <-ctx.Done():
		return nil, fault.Busy.Errorf("many people sign in at this moment: %w", ctx.Err())
	}
	return argon2.IDKey([]byte(secret), salt, c.Rounds, c.Memory, c.Threads, 32), nil
}

// matches reports whether the password is the one that was hashed.
func (a *Auth) matches(ctx context.Context, secret, hash string) (bool, error) {
	var version int
	var c Cost
	parts := strings.Split(hash, "$")
	if len(parts) != 6 || parts[1] != "argon2id" {
		return false, fault.Internal.Errorf("a stored password is not of argon2id")
	}
	_, err1 := fmt.Sscanf(parts[2], "v=%d", &version)
	_, err2 := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &c.Memory, &c.Rounds, &c.Threads)
	salt, err3 := base64.RawStdEncoding.DecodeString(parts[4])
	want, err4 := base64.RawStdEncoding.DecodeString(parts[5])
	for _, err := range []error{err1, err2, err3, err4} {
		if err != nil || version != argon2.Version {
			return false, fault.Internal.Errorf("a stored password cannot be read: version %d, %w", version, err)
		}
	}
	got, err := a.argon(ctx, secret, salt, c)
	return subtle.ConstantTimeCompare(got, want) == 1, err
}

// SetPassword sets the person's password. One that is too short, too long or
// the person's name is fault.Invalid.
func (a *Auth) SetPassword(ctx context.Context, person, secret string) error {
	switch n := utf8.RuneCountInString(secret); {
	case n < shortestPassword:
		return fault.Invalid.Errorf("that password has %d characters; use at least %d, a few words for example", n, shortestPassword)
	case len(secret) > longestPassword:
		return fault.Invalid.Errorf("that password has %d bytes; at most %d", len(secret), longestPassword)
	case strings.EqualFold(secret, person):
		return fault.Invalid.Errorf("that password is your name; choose another")
	}
	p, err := a.person(ctx, person)
	if err != nil {
		return err
	}
	hash, err := a.hash(ctx, secret)
	if err != nil {
		return err
	}
	w, err := write(ofPerson(p.Metadata.UID, "password", "1"), password{hash}, 0)
	if err != nil {
		return err
	}
	_, err = a.Store.KV().Commit(ctx, store.Txn{Then: []store.Write{w}})
	return err
}

// stored returns the hash of the person's password. A person who has none, or
// is unknown, gets one that fits nothing, so that guessing takes as long.
func (a *Auth) stored(ctx context.Context, uid string) (hash string, has bool, err error) {
	p, _, err := read[password](ctx, a, ofPerson(uid, "password", "1"))
	switch {
	case err == nil:
		return p.Hash, true, nil
	case errors.Is(err, fault.NotFound):
		return a.decoy, false, nil
	}
	return "", false, err
}

// byPassword signs the person in. Wrong name and wrong password are one error.
func (a *Auth) byPassword(w http.ResponseWriter, r *http.Request, name, secret string) error {
	ctx, from := r.Context(), place(r)
	name = strings.ToLower(strings.TrimSpace(name))
	name = name[:min(len(name), 64)]
	if err := a.places.take(from); err != nil {
		return err
	}
	if err := a.persons.take(name); err != nil {
		return err
	}
	p, err := a.person(ctx, name)
	uid := "nobody"
	switch kind := fault.KindOf(err); {
	case err == nil:
		uid = p.Metadata.UID
	case kind != fault.NotFound && kind != fault.Invalid:
		return err
	}
	hash, has, err := a.stored(ctx, uid)
	if err != nil {
		return err
	}
	ok, err := a.matches(ctx, secret[:min(len(secret), longestPassword+1)], hash)
	if err != nil {
		return err
	}
	if !ok || !has || p == nil {
		a.Log.Warn("wrong password", "from", from)
		return a.refused(r, p, "password", fault.Unauthenticated.Errorf("the name or the password is wrong"))
	}
	if err := a.begin(w, r, p, "password", store.Txn{}); err != nil {
		return err
	}
	a.places.back(from)
	a.persons.back(name)
	return nil
}
