package auth_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"testing"
	"time"
)

var b64 = base64.RawURLEncoding

// device is an authenticator with one passkey: it does with real keys and real
// signatures what a phone does.
type device struct {
	t       *testing.T
	key     *ecdsa.PrivateKey
	id      []byte
	handle  string
	counter uint32
	origin  string
	site    string
}

func newDevice(t *testing.T) *device {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id := make([]byte, 16)
	rand.Read(id)
	return &device{t: t, key: key, id: id, origin: "http://localhost:8080", site: "localhost"}
}

func (d *device) clientData(ceremony, challenge string) []byte {
	d.t.Helper()
	text, err := json.Marshal(map[string]any{"type": ceremony, "challenge": challenge, "origin": d.origin, "crossOrigin": false})
	if err != nil {
		d.t.Fatal(err)
	}
	return text
}

// authData is the authenticator data of WebAuthn, section 6.1: present and
// verified, and the new key if there is one.
func (d *device) authData(key []byte) []byte {
	site := sha256.Sum256([]byte(d.site))
	flags := byte(0x01 | 0x04)
	if key != nil {
		flags |= 0x40
	}
	d.counter++
	data := append(site[:], flags)
	data = binary.BigEndian.AppendUint32(data, d.counter)
	return append(data, key...)
}

// make answers the options of a registration.
func (d *device) make(options map[string]any) body {
	d.t.Helper()
	public := options["publicKey"].(map[string]any)
	handle, err := b64.DecodeString(public["user"].(map[string]any)["id"].(string))
	if err != nil {
		d.t.Fatal(err)
	}
	d.handle = string(handle)
	point, err := d.key.PublicKey.Bytes() // 4, x, y
	if err != nil {
		d.t.Fatal(err)
	}
	key := make([]byte, 16) // of no known model
	key = binary.BigEndian.AppendUint16(key, uint16(len(d.id)))
	key = append(key, d.id...)
	// COSE_Key in CBOR: EC2, ES256, P-256, x, y.
	key = append(key, 0xa5, 0x01, 0x02, 0x03, 0x26, 0x20, 0x01, 0x21, 0x58, 0x20)
	key = append(key, point[1:33]...)
	key = append(key, 0x22, 0x58, 0x20)
	key = append(key, point[33:]...)
	data := d.authData(key)
	object := append([]byte("\xa3\x63fmt\x64none\x67attStmt\xa0\x68authData\x58"), byte(len(data)))
	object = append(object, data...)
	return d.answer(body{
		"clientDataJSON":    b64.EncodeToString(d.clientData("webauthn.create", public["challenge"].(string))),
		"attestationObject": b64.EncodeToString(object),
	})
}

// sign answers the options of a sign-in.
func (d *device) sign(options map[string]any) body {
	d.t.Helper()
	client := d.clientData("webauthn.get", options["publicKey"].(map[string]any)["challenge"].(string))
	data := d.authData(nil)
	sum := sha256.Sum256(client)
	sum = sha256.Sum256(append(data[:len(data):len(data)], sum[:]...))
	signature, err := ecdsa.SignASN1(rand.Reader, d.key, sum[:])
	if err != nil {
		d.t.Fatal(err)
	}
	return d.answer(body{
		"clientDataJSON": b64.EncodeToString(client), "authenticatorData": b64.EncodeToString(data),
		"signature": b64.EncodeToString(signature), "userHandle": b64.EncodeToString([]byte(d.handle)),
	})
}

func (d *device) answer(response body) body {
	id := b64.EncodeToString(d.id)
	return body{"id": id, "rawId": id, "type": "public-key", "response": response, "clientExtensionResults": body{}}
}

// withPasskey signs somebody in by code and adds a passkey.
func withPasskey(t *testing.T, w *world, person string) (*device, *browser) {
	t.Helper()
	d, b := newDevice(t), w.browser(t).signIn(person)
	b.want(200, "POST", "/v1/me/passkeys/finish", d.make(b.want(200, "POST", "/v1/me/passkeys/begin", body{})))
	return d, b
}

func TestPasskeySignsIn(t *testing.T) {
	w := newWorld(t, cheap)
	d, _ := withPasskey(t, w, "ana")
	for range 2 {
		b := w.browser(t)
		b.want(200, "POST", "/v1/sign-in/passkey/finish", d.sign(b.want(200, "POST", "/v1/sign-in/passkey/begin", body{})))
		if c, err := b.who(); err != nil || c.Person != "ana" {
			t.Errorf("signed in as %+v, %v; want ana", c, err)
		}
	}
}

func TestPasskeyAnswersAreRefused(t *testing.T) {
	w := newWorld(t, cheap)
	for name, spoil := range map[string]func(*device){
		"of another site":          func(d *device) { d.site = "evil.example" },
		"to a page of another":     func(d *device) { d.origin = "http://evil.example" },
		"with another key":         func(d *device) { d.key = newDevice(t).key },
		"for another person":       func(d *device) { d.handle = "someone-else" },
		"of a device never added":  func(d *device) { d.id = newDevice(t).id },
		"with a counter gone back": func(d *device) { d.counter = 0 },
	} {
		d, _ := withPasskey(t, w, "ana")
		b := w.browser(t)
		b.want(200, "POST", "/v1/sign-in/passkey/finish", d.sign(b.want(200, "POST", "/v1/sign-in/passkey/begin", body{}))) // the control
		b = w.browser(t)
		options := b.want(200, "POST", "/v1/sign-in/passkey/begin", body{})
		spoil(d)
		if status, answer, _ := b.send("POST", "/v1/sign-in/passkey/finish", d.sign(options)); status != 401 {
			t.Errorf("an answer %s: %d %v, want 401", name, status, answer)
		}
		if _, err := b.who(); err == nil {
			t.Errorf("an answer %s signed in", name)
		}
		w.pass(time.Minute)
	}
}

func TestPasskeyAnswerIsGoodOnce(t *testing.T) {
	w := newWorld(t, cheap)
	d, _ := withPasskey(t, w, "ana")
	b := w.browser(t)
	answer := d.sign(b.want(200, "POST", "/v1/sign-in/passkey/begin", body{}))
	thief := w.browser(t)
	thief.cookies["consort-ceremony"] = b.cookies["consort-ceremony"]
	b.want(200, "POST", "/v1/sign-in/passkey/finish", answer)
	thief.want(401, "POST", "/v1/sign-in/passkey/finish", answer)
}

func TestPasskeyIsAddedToWhoBegan(t *testing.T) {
	w := newWorld(t, cheap)
	ana, eve := w.browser(t).signIn("ana"), w.browser(t).signIn("eve")
	options := eve.want(200, "POST", "/v1/me/passkeys/begin", body{})
	ana.cookies["consort-ceremony"] = eve.cookies["consort-ceremony"]
	ana.want(403, "POST", "/v1/me/passkeys/finish", newDevice(t).make(options))
}

func TestAddingAPasskeyNeedsAFreshSignIn(t *testing.T) {
	w := newWorld(t, cheap)
	ana := w.browser(t).signIn("ana")
	w.pass(11 * time.Minute)
	ana.want(403, "POST", "/v1/me/passkeys/begin", body{})
	w.browser(t).want(401, "POST", "/v1/me/passkeys/begin", body{})
}

func TestRemovedPasskeyOpensNothing(t *testing.T) {
	w := newWorld(t, cheap)
	d, ana := withPasskey(t, w, "ana")
	list := ana.want(200, "GET", "/v1/me/passkeys", nil)["items"].([]any)
	if len(list) != 1 {
		t.Fatalf("passkeys %v, want one", list)
	}
	ana.want(200, "DELETE", "/v1/me/passkeys/"+list[0].(map[string]any)["id"].(string), nil)
	b := w.browser(t)
	b.want(401, "POST", "/v1/sign-in/passkey/finish", d.sign(b.want(200, "POST", "/v1/sign-in/passkey/begin", body{})))
}
