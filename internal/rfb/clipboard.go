package rfb

import (
	"bufio"
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"io"
	"strings"

	"consort.dev/consort/fault"
)

// ClipboardAction is one act of the extended clipboard.
type ClipboardAction uint32

// The acts. A message has one, except Caps, which adds those that are spoken.
const (
	ClipboardCaps    ClipboardAction = 1 << 24
	ClipboardRequest ClipboardAction = 1 << 25
	ClipboardPeek    ClipboardAction = 1 << 26
	ClipboardNotify  ClipboardAction = 1 << 27
	ClipboardProvide ClipboardAction = 1 << 28
)

const (
	clipboardText    = 1 << 0 // the one format we carry
	clipboardActions = 0xff000000
	// maxClipboardFrame bounds a compressed text. zlib makes nothing larger by
	// more than a few parts in a thousand.
	maxClipboardFrame = MaxText
)

// ClipboardMark is a message of the extended clipboard. Text is UTF-8 with
// plain line feeds; longer than the reader's limit it is skipped, and Skipped
// says how long it was.
type ClipboardMark struct {
	FromServer bool
	Actions    ClipboardAction
	HasText    bool // the text format is meant
	MaxText    uint32
	Text       string
	Skipped    int64
}

// Does reports whether the message is of that act, or its capabilities have it.
func (m ClipboardMark) Does(a ClipboardAction) bool { return m.Actions&a != 0 }

// readClipboard reads an extended clipboard message of n bytes.
func readClipboard(r *bufio.Reader, n int64, limit int, fromServer bool) (Message, error) {
	m := ClipboardMark{FromServer: fromServer}
	if n < 4 || n > maxClipboardFrame {
		return nil, fault.Invalid.Errorf("extended clipboard message of %d bytes", n)
	}
	head, err := take(r, 4)
	if err != nil {
		return nil, err
	}
	flags := binary.BigEndian.Uint32(head)
	m.Actions, m.HasText = ClipboardAction(flags&clipboardActions), flags&clipboardText != 0
	n -= 4
	if n > int64(limit)+int64(limit)/64+1024 { // even what does not compress is smaller
		m.Skipped = n
		return m, skip(r, n)
	}
	body, err := take(r, int(n))
	if err != nil || !m.HasText {
		return m, err
	}
	switch {
	case m.Does(ClipboardCaps):
		if n < 4 {
			return nil, fault.Invalid.Errorf("extended clipboard capabilities without a size")
		}
		m.MaxText = binary.BigEndian.Uint32(body)
	case m.Does(ClipboardProvide):
		m.Text, m.Skipped, err = inflateText(body, limit)
	}
	return m, err
}

// inflateText takes the first text out of a Provide message.
func inflateText(body []byte, limit int) (text string, skipped int64, err error) {
	z, err := zlib.NewReader(bytes.NewReader(body))
	if err != nil {
		return "", 0, fault.Invalid.Errorf("clipboard text: %w", err)
	}
	var head [4]byte
	if _, err := io.ReadFull(z, head[:]); err != nil {
		return "", 0, fault.Invalid.Errorf("clipboard text: %v", err)
	}
	n := binary.BigEndian.Uint32(head[:])
	if int64(n) > int64(limit)+1 { // a final NUL does not count
		return "", int64(n), nil
	}
	var b bytes.Buffer
	if got, err := io.CopyN(&b, z, int64(n)); err != nil {
		return "", 0, fault.Invalid.Errorf("clipboard text of %d bytes ends after %d: %v", n, got, err)
	}
	return strings.ReplaceAll(strings.TrimSuffix(b.String(), "\x00"), "\r\n", "\n"), 0, nil
}

func (m ClipboardMark) append(b []byte) []byte {
	kind := byte(clientCutText)
	if m.FromServer {
		kind = serverCutText
	}
	flags := uint32(m.Actions)
	if m.HasText {
		flags |= clipboardText
	}
	body := binary.BigEndian.AppendUint32(nil, flags)
	switch {
	case m.HasText && m.Does(ClipboardCaps):
		body = binary.BigEndian.AppendUint32(body, m.MaxText)
	case m.HasText && m.Does(ClipboardProvide):
		body = append(body, deflateText(m.Text)...)
	}
	b = binary.BigEndian.AppendUint32(append(b, kind, 0, 0, 0), uint32(-int32(len(body))))
	return append(b, body...)
}

func deflateText(text string) []byte {
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\n", "\r\n") + "\x00"
	var b bytes.Buffer
	z := zlib.NewWriter(&b)
	// Writes to memory do not fail.
	_, _ = z.Write(binary.BigEndian.AppendUint32(nil, uint32(len(text))))
	_, _ = io.WriteString(z, text)
	_ = z.Close()
	return b.Bytes()
}

// Latin1 returns the text in the classic form; what Latin-1 lacks becomes "?".
func Latin1(text string) []byte {
	b := make([]byte, 0, len(text))
	for _, c := range text {
		if c > 255 {
			c = '?'
		}
		b = append(b, byte(c))
	}
	return b
}

// FromLatin1 returns classic text as UTF-8.
func FromLatin1(b []byte) string {
	var s strings.Builder
	for _, c := range b {
		s.WriteRune(rune(c))
	}
	return s.String()
}
