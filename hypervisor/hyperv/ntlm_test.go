package hyperv

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"strings"
	"sync"
	"testing"
	"unicode/utf16"
)

// handshakes asks each connection for NTLM, as http.sys does: the three messages
// come on one connection, which is then authenticated. It looks at the user's
// name and at the shape of messages (MS-NLMP 2.2.1); it proves no password.
type handshakes struct {
	mu    sync.Mutex
	stage map[string]int // by connection
	torn  int            // messages that came on a connection without the one before
}

func (h *handshakes) admits(w http.ResponseWriter, r *http.Request) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	conn := r.RemoteAddr
	if h.stage[conn] == 3 {
		return true
	}
	answer := "Negotiate"
	if text, is := strings.CutPrefix(r.Header.Get("Authorization"), "Negotiate "); is {
		msg, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(msg) < 12 || !bytes.HasPrefix(msg, []byte("NTLMSSP\x00")) {
			w.WriteHeader(http.StatusBadRequest)
			return false
		}
		switch kind := binary.LittleEndian.Uint32(msg[8:]); {
		case kind == 1:
			h.stage[conn] = 1
			answer += " " + base64.StdEncoding.EncodeToString(challenge())
		case kind == 3 && h.stage[conn] != 1:
			h.torn++
		case kind == 3 && bytes.Contains(msg, wide("operator")):
			h.stage[conn] = 3
			return true
		}
	}
	w.Header().Set("WWW-Authenticate", answer)
	w.WriteHeader(http.StatusUnauthorized)
	return false
}

// challenge is a CHALLENGE_MESSAGE without a target.
func challenge() []byte {
	const flags = 0x1 | 0x200 | 0x8000 | 0x80000 | 0x800000 // Unicode, NTLM, always sign, extended security, target info
	b := append([]byte("NTLMSSP\x00"), 2, 0, 0, 0)
	b = append(b, 0, 0, 0, 0, 56, 0, 0, 0) // target name
	b = binary.LittleEndian.AppendUint32(b, flags)
	b = append(b, "8 bytes.\x00\x00\x00\x00\x00\x00\x00\x00"...)
	b = append(b, 4, 0, 4, 0, 56, 0, 0, 0) // target info
	b = append(b, make([]byte, 8)...)      // version
	return append(b, 0, 0, 0, 0)           // the end of target info
}

func wide(s string) (b []byte) {
	for _, u := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}

func TestNTLMAuthenticatesEachConnectionByItself(t *testing.T) {
	f := newFakeService(t, newModel(t))
	f.ntlm = &handshakes{stage: map[string]int{}}
	h := open(t, config(t, f))
	defer h.Close()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, err := h.List(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	f.ntlm.mu.Lock()
	defer f.ntlm.mu.Unlock()
	if f.ntlm.torn > 0 || len(f.ntlm.stage) > lanes {
		t.Errorf("%d handshakes were torn apart, over %d connections; want none over at most %d", f.ntlm.torn, len(f.ntlm.stage), lanes)
	}
}
